"""One bridge in a network namespace of the test's own, and a namespace on it for each container and host.

Nothing outside can be reached from it, and it ends with the process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

#: Flags of unshare(2); Python has them since 3.12.
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
BRIDGE = "br0"
GATEWAY = "10.99.0.1"
#: The address of the bucket.
S3 = "10.99.0.2"
#: What the runner itself calls: util-linux, iproute2, HAProxy.
PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "haproxy")


def missing() -> str:
    """Return why containers cannot be made here, or an empty text."""
    if absent := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"not installed: {', '.join(absent)}"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"namespaces cannot be made here: {tried.stderr.strip()}" if tried.returncode else ""


def isolate() -> None:
    """Move this thread, and the processes that it starts, to namespaces of their own with a bridge. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, f"namespaces cannot be made here: {os.strerror(error)}")
    _run("mount", "--make-rprivate", "/")
    Path("/run/netns").mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "netns", "/run/netns")
    _ip("link", "set", "lo", "up")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{GATEWAY}/16", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    own_address(S3, on=True)


def own_address(address: str, *, on: bool) -> None:
    """Give the test's own end of the bridge one more address, or take it away."""
    _ip("address", "add" if on else "delete", f"{address}/16", "dev", BRIDGE)


def attach(namespace: str, address: str) -> None:
    """Create a namespace whose eth0 has this address on the bridge. Its other end bears the address in its name."""
    _ip("netns", "add", namespace)
    _ip("link", "add", _end(address), "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("link", "set", _end(address), "master", BRIDGE, "up")
    _ip("-n", namespace, "address", "add", f"{address}/16", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", namespace, "link", "set", device, "up")


def plug(address: str, *, on: bool) -> None:
    """Connect an address with the bridge, or cut it off, as if its cable were pulled."""
    _ip("link", "set", _end(address), "up" if on else "down")


def inside(namespace: str, *command: str) -> list[str]:
    """Return `command` for a process in the namespace that ends with the thread that starts it."""
    return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace, *command]


def _end(address: str) -> str:
    return f"v{address.replace('.', '-')[3:]}"


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
