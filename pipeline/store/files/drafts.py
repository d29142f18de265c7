"""Drafts: directories in which artifacts are built, each locked while its process works in it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.store.files.backends import make_directory
from pipeline.store.files.store_errors import full_disk_errors, store_errors

#: An unlocked draft without a write for this long is left over from a killed run.
STALE_DRAFT_SECONDS = 24 * 3600


@contextmanager
def open_draft(parent: Path) -> Iterator[Path]:
    """Yield a new directory below `parent`; it is deleted afterwards unless it was moved.

    Raises StoreError if it cannot be created or the disk is full.
    """
    directory = parent / secrets.token_hex(8)
    with store_errors(str(parent)):
        # The first draft may also create the store's own directory.
        make_directory(parent)
        directory.mkdir()
        held = os.open(directory, os.O_RDONLY)
    try:
        with store_errors(str(parent)):
            _lock(held)
            remove_stale_drafts(parent, now=time.time())
        with full_disk_errors(str(directory)):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(held)


def remove_stale_drafts(parent: Path, *, now: float) -> None:
    """Remove drafts of killed runs: unlocked, and last written a day or more before `now` (seconds since the epoch).

    Drafts from a day or more after `now` are removed too, because the clock may have been set back.
    """
    for directory in parent.iterdir():
        try:
            touched = max(path.lstat().st_mtime for path in (directory, *directory.rglob("*")))
        except FileNotFoundError:
            continue  # its run is writing there, or has just published it
        if abs(now - touched) > STALE_DRAFT_SECONDS and not _is_held(directory):
            shutil.rmtree(directory, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    """Lock the directory until the descriptor is closed or the process ends; return False if another holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: only the age decides
    return True


def _is_held(directory: Path) -> bool:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return True  # deleted meanwhile, or owned by another user
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)
