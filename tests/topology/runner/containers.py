"""A container: a process in namespaces of its own, restarted and checked as Docker does."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.topology.runner.images import Image
from tests.topology.runner.networks import inside
from tests.topology.runner.roots import as_user, enter, mount_kernel, mount_root

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
#: Seconds between checks while a container starts.
START_INTERVAL = 5.0


@dataclass(frozen=True)
class Mount:
    """A directory or file of the host in a container. A named volume takes content and owner from the image, if new."""

    source: Path
    target: str
    read_only: bool
    volume: bool

    def commands(self, root: Path) -> list[str]:
        """Return the shell commands that mount it below `root`."""
        target = f"{root}{self.target}"
        bind = f"mount --bind {self.source} {target}" + (f" && mount -o remount,bind,ro {target}" * self.read_only)
        if self.source.is_file():
            return [f"mkdir -p {Path(target).parent} && touch {target}", bind]
        return [*(self._filled(target) if self.volume else []), f"mkdir -p {target}", bind]

    def _filled(self, target: str) -> list[str]:
        """Docker's rule for an empty volume; a directory that the image does not have belongs to root."""
        same = f"chown --reference={target} {self.source} && chmod --reference={target} {self.source}"
        return [
            f'if [ -d {target} ] && [ -z "$(ls -A {self.source})" ]; then cp -a {target}/. {self.source}/ && {same}; fi'
        ]


def seconds(text: str) -> float:
    """Return the seconds of a duration such as `1m30s`."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", text))


@dataclass
class Container:
    """One service of a compose file; `start` runs it until `stop`, `kill`, or an end that is not restarted."""

    name: str
    image: Image
    service: dict[str, Any]
    namespace: str
    address: str
    hostname: str
    hosts: Path
    mounts: list[Mount]
    state: Path
    #: Environment variables that a test adds.
    further: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    status: int | None = None
    healthy: bool = False
    process: subprocess.Popen[bytes] | None = None
    _begun: float = 0.0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def is_stopped(self) -> bool:
        """Return whether it was never started, or was stopped or killed."""
        return not self._threads or self._stopping.is_set()

    @property
    def log(self) -> str:
        """Return the output so far."""
        return (self.state / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def environment(self) -> dict[str, str]:
        home = "/root" if self.image.user == "root" else f"/home/{self.image.user}"
        given: dict[str, str] = self.service["environment"]
        return {"HOSTNAME": self.hostname, "HOME": home} | self.image.environment | given | dict(self.further)

    @property
    def check(self) -> dict[str, Any]:
        """Return the health check of the image with the changes of the compose file; empty if there is none."""
        check = self.image.healthcheck | self.service.get("healthcheck", {})
        return {} if check.get("disable") else check

    def start(self) -> None:
        """Start the container; return at once."""
        self.state.mkdir(parents=True, exist_ok=True)
        self._stopping.clear()
        self.status, self.healthy = None, False
        self._threads = [threading.Thread(target=self._supervise, daemon=True)]
        if self.check:
            self._threads.append(threading.Thread(target=self._watch, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End it as `docker stop` does: SIGTERM, and SIGKILL after the grace period (10 seconds by default)."""
        self._end(signal.SIGTERM, seconds(self.service.get("stop_grace_period", "10s")))

    def remove(self) -> None:
        """Stop it and delete all that it has written outside its volumes."""
        self.stop()
        for name in ("upper", "work"):
            shutil.rmtree(self.state / name, ignore_errors=True)

    def kill(self) -> None:
        """End all of its processes at once, as a power cut would."""
        self._end(signal.SIGKILL, 10)

    def crash(self) -> None:
        """Kill its first process, and with it all others; the restart policy applies."""
        subprocess.run(["kill", "-KILL", self.first_process()], check=True)

    def execute(self, *command: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command as `docker exec` does; it is killed after `limit` seconds."""
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
        limited = ["timeout", "--signal", "KILL", str(limit), *command]
        inner = as_user(self.image.user, self.image.directory, self.environment, limited)
        return subprocess.run(
            ["nsenter", "--target", self.first_process(), *spaces, *inner], capture_output=True, text=True, check=False
        )

    def first_process(self) -> str:
        """Return the id, outside, of the container's process 1; RuntimeError if it does not run."""
        outer = self.process.pid if self.process else 0
        children = Path(f"/proc/{outer}/task/{outer}/children")
        found = children.read_text().split() if children.exists() else []
        if not found:
            raise RuntimeError(f"{self.name} does not run:\n{self.log[-2000:]}")
        return found[0]

    def processes(self) -> list[psutil.Process]:
        """Return its processes, seen from outside; empty if it does not run."""
        with suppress(RuntimeError, psutil.NoSuchProcess):
            first = psutil.Process(int(self.first_process()))
            return [first, *first.children(recursive=True)]
        return []

    def _end(self, sign: signal.Signals, grace: float) -> None:
        self._stopping.set()
        if self.process and self.process.poll() is None:
            subprocess.run(["kill", f"-{sign.name.removeprefix('SIG')}", self.first_process()], check=False)
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for thread in self._threads:
            thread.join()
        self.status, self.healthy = None, False

    def _supervise(self) -> None:
        pause = 0.1
        while True:
            with (self.state / "log").open("ab") as log:
                self._begun = time.monotonic()
                self.process = subprocess.Popen(self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
                self.status = self.process.wait()
            self.healthy = False
            if self.service.get("restart") != "unless-stopped" or self._stopping.wait(pause):
                return
            pause = min(2 * pause, 60)
            self.restarts += 1

    def _command(self) -> list[str]:
        root = self.state / "root"
        command = [*self.image.entrypoint, *(self.service.get("command") or self.image.command)]
        script = [
            "set -eu",
            *mount_root(root, self.image.layers, self.state),
            *mount_kernel(root),
            *(line for mount in self.mounts for line in mount.commands(root)),
            f"mount --bind {self.hosts} {root}/etc/hosts && mount --bind /dev/null {root}/etc/resolv.conf",
            f"hostname {self.hostname}",
            f"mkdir -p {root}{self.image.directory}",
            enter(root, self.image.user, self.image.directory, self.environment, command),
        ]
        namespaces = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        return inside(self.namespace, *namespaces, "bash", "-c", "\n".join(script))

    def _watch(self) -> None:
        failures = 0
        while not self._stopping.wait(self._pause()):
            passed = self._passes()
            failures = 0 if passed else failures + (not self._is_starting())
            self.healthy = passed or (self.healthy and failures < self.check.get("retries", 3))

    def _is_starting(self) -> bool:
        """Return whether failed checks do not count yet."""
        return not self.healthy and time.monotonic() - self._begun < seconds(self.check.get("start_period", "0s"))

    def _pause(self) -> float:
        interval = seconds(self.check.get("interval", "30s"))
        return min(START_INTERVAL, interval) if self._is_starting() else interval

    def _passes(self) -> bool:
        kind, *words = self.check["test"]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        try:
            return self.execute(*command, limit=seconds(self.check.get("timeout", "30s"))).returncode == 0
        except RuntimeError:
            return False
