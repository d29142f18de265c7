"""Drafts: directories in which artifacts are built, each locked for as long as somebody is at work in it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.store.backends import make_directory
from pipeline.store.store_errors import full_disk_errors, store_errors

#: A draft in which nothing was written for this long, and that nobody holds, belongs to a run that was killed.
STALE_DRAFT_SECONDS = 24 * 3600


@contextmanager
def open_draft(parent: Path) -> Iterator[Path]:
    """A new directory below `parent`; gone afterwards unless it was moved.

    Raises StoreError where it cannot be made, or where the disk fills up meanwhile.
    """
    directory = parent / secrets.token_hex(8)
    with store_errors(str(parent)):
        # The store's own directory may be new with its first draft.
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
    """Remove drafts that killed runs left: nobody holds them, and they were written a day or more from `now` (seconds).

    Also a day after it, for a clock may have been set back.
    """
    for directory in parent.iterdir():
        try:
            touched = max(path.lstat().st_mtime for path in (directory, *directory.rglob("*")))
        except FileNotFoundError:
            continue  # its run is at work there, or just published it
        if abs(now - touched) > STALE_DRAFT_SECONDS and not _is_held(directory):
            shutil.rmtree(directory, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    """Whether nobody else holds the directory; kept until the descriptor is closed, or its process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: there the age alone decides
    return True


def _is_held(directory: Path) -> bool:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return True  # gone meanwhile, or another user's
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)
