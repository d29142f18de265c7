"""Contents of a directory after a power cut, as POSIX guarantees: only flushed data."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


class PowerCut:
    """Record every flush below `root`, which itself exists durably."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._flush = os.fsync
        #: Called before each flush.
        self.before: Callable[[], object] = lambda: None
        patch.setattr(os, "fsync", self._fsync)

    def _fsync(self, descriptor: int) -> None:
        self.before()
        self._flush(descriptor)
        path, state = Path(f"/proc/self/fd/{descriptor}").resolve(), os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            self._names[state.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._contents[state.st_ino] = path.read_bytes()

    def least(self, target: Path) -> Path:
        """Write the minimum that survives to `target`: flushed names with flushed contents."""
        self._write(self._root.stat().st_ino, target)
        return target

    def _write(self, inode: int, target: Path) -> None:
        target.mkdir()
        for name, child in self._names.get(inode, {}).items():
            if child in self._contents:
                (target / name).write_bytes(self._contents[child])
            else:
                self._write(child, target / name)

    def most(self, target: Path) -> Path:
        """Write the maximum that survives to `target`: all current names with flushed contents."""
        target.mkdir()
        for path in sorted(self._root.rglob("*")):
            copy = target / path.relative_to(self._root)
            if path.is_dir():
                copy.mkdir()
            else:
                copy.write_bytes(self._contents.get(path.stat().st_ino, b""))
        return target
