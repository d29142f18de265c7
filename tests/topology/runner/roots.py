"""Root directories of containers: layers over the directories of this machine that stand for the base image."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

#: Directories of this machine that are the base of every image. Home directories and the checkout are not.
BASE = ("etc", "opt", "usr", "var")
#: Directories that each root has.
EMPTY = ("app", "dev", "home", "proc", "root", "run", "srv", "sys", "tmp", *BASE)
#: Directories that are links into /usr, as in Debian.
LINKS = ("bin", "lib", "lib64", "sbin")


def make_skeleton(layer: Path) -> None:
    """Write the lowest layer: empty directories and Debian's links."""
    for name in EMPTY:
        (layer / name).mkdir()
    (layer / "tmp").chmod(0o1777)
    for name in LINKS:
        (layer / name).symlink_to(f"usr/{name}")


def mount_root(root: Path, layers: Sequence[Path], writable: Path) -> list[str]:
    """Return the shell commands that mount `layers`, the lowest first, at `root`.

    Changes go to `writable/upper`. Each directory of BASE is an overlay of its own, because overlays end at mounts.
    """
    commands = [f"mkdir -p {root}", overlay(root, list(layers), writable, ".")]
    for name in BASE:
        lower = [layer / name for layer in layers if (layer / name).is_dir()]
        commands.append(overlay(root / name, [Path("/") / name, *lower], writable, name))
    return commands


def overlay(target: Path, lower: Sequence[Path], writable: Path, name: str) -> str:
    """Return the shell command of one overlay; `lower` has the lowest layer first."""
    upper, work = writable / "upper" / name, writable / "work" / name.replace(".", "root")
    options = f"lowerdir={':'.join(map(str, reversed(lower)))},upperdir={upper},workdir={work}"
    return f"mkdir -p {upper} {work} && mount -t overlay overlay -o {shlex.quote(options)} {target}"


def mount_kernel(root: Path) -> list[str]:
    """Return the shell commands that mount the kernel's file systems; /dev/shm has Docker's size, 64 MB."""
    return [
        f"mount -t proc proc {root}/proc",
        f"mount --rbind /sys {root}/sys",
        f"mount --rbind /dev {root}/dev",
        f"mount -t tmpfs -o size=64m,mode=1777 shm {root}/dev/shm",
    ]


def enter(root: Path, user: str, directory: str, environment: dict[str, str], command: Sequence[str]) -> str:
    """Return the shell command that becomes `command` in `root`, as a user of the image."""
    return f"exec chroot {root} {shlex.join(as_user(user, directory, environment, command))}"


def as_user(user: str, directory: str, environment: dict[str, str], command: Sequence[str]) -> list[str]:
    """Return `command` for a process in the root that is still root: it gets user, directory and environment."""
    # A change of the user clears the signal at the parent's death, so it is set again.
    identity = '--reuid "$user" --regid "$(id -g "$user")" --init-groups --pdeathsig KILL'
    become = f'user="$1"; shift; exec setpriv {identity} env -i "$@"'
    values = [f"{name}={value}" for name, value in environment.items()]
    return ["sh", "-c", become, "sh", user, f"--chdir={directory}", *values, *command]
