"""Install the pinned packages into a virtual environment: with uv, or with pip if uv cannot be had.

Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.stack.lock import locked, pinned
from pipeline.stack.pip_settings import pip_settings
from pipeline.stack.preflight import INSTALL_BYTES, room_problem
from pipeline.stack.terminal import Progress
from pipeline.stack.torch_build import choose_torch, lock_for

EXTRAS = "airflow,celery,kubernetes,fab,train,serve,docs,dev"
#: Retries of a download that breaks off. uv's own number, 3, ends before a short outage does.
RETRIES = "8"


class InstallError(Exception):
    """The installation failed; the message says why."""


@dataclass(frozen=True)
class Installer:
    """One installation of the project in `root` into the environment `venv`; all output goes to `log`."""

    root: Path
    venv: Path
    log: Path
    progress: Progress
    #: False leaves out torch, for tests that do not need it.
    torch: bool = True

    @property
    def python(self) -> str:
        """Return the path of the environment's interpreter."""
        return str(self.venv / "bin" / "python")

    def install(self) -> None:
        """Create the environment and install everything. Raises InstallError."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("", encoding="utf-8")
        self.progress.step(f"preparing {self.venv} with Python {sys.version.split()[0]}")
        self._make_venv()
        if self._has_uv():
            self._install_with_uv()
        elif self.torch:
            self.progress.step("uv cannot be installed, so pip installs the packages: slower, and without hashes")
            self._install_with_pip()
        else:
            raise InstallError("an environment without torch needs uv, which cannot be installed")

    def _make_venv(self) -> None:
        """Create the environment, or keep it if its pip runs and its Python has the wanted version."""
        asked = [self.python, "-c", "import pip, sys; print(sys.version_info[:2])"]
        try:
            if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == str(sys.version_info[:2]):  # noqa: S603
                return
        except OSError:
            pass
        try:
            venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(self.venv)
        except (OSError, subprocess.CalledProcessError) as error:
            name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            raise InstallError(
                f"could not create the virtual environment ({error}): on Debian and Ubuntu, install the package {name}"
            ) from None

    def _has_uv(self) -> bool:
        """Return whether the pinned uv runs; install it with pip, which checks its hash, if it is absent."""
        lock = self._lock.read_text(encoding="utf-8")
        if self._uv_version() == pinned("uv", lock):
            return True
        file = self._temporary() / "uv.txt"
        file.write_text(locked("uv", lock), encoding="utf-8")
        command = [*self._pip(), "--no-deps", "--require-hashes", "-r", str(file)]
        self._run(command, os.environ, lambda log: "installing uv, which installs the packages")
        return self._uv_version() == pinned("uv", lock)

    def _uv_version(self) -> str | None:
        """Return the version of the environment's uv, or None if it does not run."""
        asked = [self.python, "-m", "uv", "--version"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603
        return said[1] if len(said) > 1 else None

    def _install_with_uv(self) -> None:
        settings = pip_settings(self.python)
        cache = self.venv / "cache"
        variables = {"UV_CACHE_DIR": str(cache), "UV_HTTP_RETRIES": RETRIES}
        environment = {**settings.variables, **variables, **os.environ, "TMPDIR": str(self._temporary())}
        lock = self._lock.read_text(encoding="utf-8")
        torch = choose_torch(self.python, lock, environment, self._temporary(), wanted=self.torch)
        self.progress.step(torch.text)
        if problem := room_problem(self.venv, INSTALL_BYTES + torch.more):
            raise InstallError(problem)
        locks = lock_for(self._lock, environment, self._temporary())
        # uv builds the project with the pinned setuptools, too.
        command = [
            self.python,
            "-m",
            "uv",
            "pip",
            "install",
            "--python",
            self.python,
            "--no-progress",
            "-b",
            str(locks),
        ]
        command += [argument for file in (str(locks), *settings.constraints) for argument in ("-c", file)]
        command += [*torch.arguments, "-e", f".[{EXTRAS}]"]
        status = self._run(command, {**environment, **torch.variables}, lambda log: uv_progress(log, self._count))
        if status != 0:
            raise InstallError(self._failure("uv", status, "rerun the command to resume; downloads are kept"))
        # Only an unfinished installation needs it.
        shutil.rmtree(cache, ignore_errors=True)

    @property
    def _lock(self) -> Path:
        return self.root / "constraints.lock"

    def _install_with_pip(self) -> None:
        command = [*self._pip(), "-c", "constraints.txt", "-e", f".[{EXTRAS}]"]
        # pip unpacks wheels in the temporary directory; the system's may be too small, and is outside HOME.
        environment = {**os.environ, "TMPDIR": str(self._temporary()), "PYTHONUNBUFFERED": "1"}
        status = self._run(command, environment, lambda log: pip_progress(log, self._count))
        if status != 0:
            raise InstallError(self._failure("pip", status, "rerun the command to try again"))

    def _pip(self) -> list[str]:
        options = ["--no-input", "--progress-bar=off", "--no-cache-dir", "--disable-pip-version-check"]
        return [self.python, "-m", "pip", "install", *options]

    def _temporary(self) -> Path:
        directory = self.log.parent.parent / "tmp"
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _run(self, command: Sequence[str], environment: Mapping[str, str], text: Callable[[str], str]) -> int:
        """Run `command`, append its output to the log and show `text` of it. Returns the exit code."""
        begun = self.log.stat().st_size
        with self.log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(  # noqa: S603
                command, cwd=self.root, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            while process.poll() is None:
                self.progress.show(text(self.log.read_bytes()[begun:].decode("utf-8", errors="replace")))
                time.sleep(0.5)
        except KeyboardInterrupt:
            # The process got the interrupt too, and undoes its unfinished step itself.
            process.wait()
            raise
        return process.returncode

    def _failure(self, tool: str, status: int, advice: str) -> str:
        tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join([*tail, f"{tool} failed (exit code {status}): {advice}. Full log: {self.log}"])

    def _count(self) -> int:
        """Return the number of packages in the environment so far."""
        return sum(1 for _ in self.venv.glob("lib/python*/site-packages/*.dist-info"))


def uv_progress(log: str, installed: Callable[[], int]) -> str:
    """Return uv's progress as text, from its output so far."""
    resolved = re.search(r"^Resolved (\d+) packages", log, re.M)
    if not resolved:
        return "resolving the packages"
    if re.search(r"^Prepared ", log, re.M):
        return f"unpacked {installed()} packages"
    begun = dict(re.findall(r"^Downloading (\S+) \((.+)\)", log, re.M))
    done = set(re.findall(r"^ Downloaded (\S+)", log, re.M))
    waiting = [f"{name} ({size})" for name, size in begun.items() if name not in done]
    text = f"downloading {resolved[1]} packages, {len(done)} of {len(begun)} large ones done"
    return f"{text}; now {', '.join(waiting[:3])}" if waiting else text


def pip_progress(log: str, installed: Callable[[], int]) -> str:
    """Return pip's progress as text, from its output so far."""
    if found := re.search(r"^Installing collected packages: (.+)", log, re.M):
        packages = found[1].count(",") + 1
        # pip itself is among the installed packages, but not in the list.
        return f"unpacked {min(installed(), packages)} of {packages} packages (the longest step)"
    lines = re.findall(
        r"^(?:Collecting |Processing \S*/| +Downloading )([A-Za-z0-9_]+(?:[.-][A-Za-z_][A-Za-z0-9_]*)*)(.*)", log, re.M
    )
    packages = {canonical(name) for name, _ in lines}
    if not packages:
        return "resolving the packages"
    name, rest = lines[-1]
    size = re.search(r"\(([\d.]+ [MG]B)\)", rest)
    return f"fetched {len(packages) - 1} packages, at {canonical(name)}{f' ({size[1]})' if size else ''}"


def canonical(name: str) -> str:
    """Return a package's normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
