"""A small disk for tests to fill up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A file system of its own, in memory; sizes are in bytes."""

    path: Path

    @property
    def used(self) -> int:
        state = os.statvfs(self.path)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def resize(self, size: int) -> None:
        """Make it larger, or smaller where that much is free."""
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """A disk of `size` bytes at `path`; the test skips where none can be mounted."""
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
        # Lazily: a process that was killed may still hold a file there for a moment.
        subprocess.run(["umount", "--lazy", path], check=True)
