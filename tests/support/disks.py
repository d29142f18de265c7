"""A small disk that tests can fill, and a record of the order of writes to a disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Disk:
    """A separate file system in memory; sizes are in bytes."""

    path: Path

    @property
    def used(self) -> int:
        state = os.statvfs(self.path)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def resize(self, size: int) -> None:
        """Resize it; it can shrink only by free space."""
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """Yield a disk of `size` bytes at `path`; skip the test if none can be mounted."""
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill up")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("this machine does not let root mount a small disk to fill up")
    try:
        yield Disk(path)
    finally:
        # Lazy unmount: a killed process may hold a file there for a moment.
        subprocess.run(["umount", "--lazy", path], check=True)


class Calls:
    """Record the calls that write to the disk, in order, each with the name of its file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str]] = []
        self._watch(monkeypatch, "fsync", lambda descriptor: str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        self._watch(monkeypatch, "replace", lambda source, _: str(source))

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str, about: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            self.seen.append((name, Path(about(*arguments)).name))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)
