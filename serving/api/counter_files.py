"""The directory with the counters of `/metrics`.

prometheus_client maps its files into memory. If the kernel finds no space for a page of such a file, it ends the worker
with a bus error (SIGBUS). The files are therefore kept in memory, and a full disk does not affect them.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer

#: Linux's file system in memory, also in a container with a read-only root.
MEMORY = Path("/dev/shm")  # noqa: S108 - the directory below it must belong to this user
#: Bytes that must be free there. A worker needs about 0.2 MB, and so does each one that replaces a dead worker.
SPACE = 8 * 1024**2


def counter_directory(home: Path, memory: Path = MEMORY) -> Path:
    """Return the directory of the service with this HOME: in `memory` if it has space, else below HOME.

    Services with different homes have different directories. One that belongs to another user is not used.
    """
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    directory = memory / f"saebyeok-{name}"
    if _has_space(memory) and _is_ours(directory):
        return directory
    return home / "bentoml" / "prometheus_multiproc_dir"


def use_counter_directory(home: Path) -> None:
    """Make BentoML use this directory for its own metrics, too. BentoML empties it before it starts the workers."""
    BentoMLContainer.prometheus_multiproc_dir.set(str(counter_directory(home)))


def delete_counters_at_exit() -> None:
    """Delete the directory when this process, the supervisor, ends. After a kill, the next start empties it."""
    atexit.register(shutil.rmtree, BentoMLContainer.prometheus_multiproc_dir.get(), ignore_errors=True)


def _has_space(memory: Path) -> bool:
    return os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= SPACE


def _is_ours(directory: Path) -> bool:
    try:
        return directory.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return True
