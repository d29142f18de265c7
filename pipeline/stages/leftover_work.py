"""Deletion of checkpoints on this host that no retry needs."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.job import Job
from pipeline.store.artifacts import MANIFEST, Store

log = logging.getLogger(__name__)


def delete_leftover_work(job: Job) -> None:
    """Delete the checkpoints below HOME/work of trainings that are finished, or that ended `keep_days` ago.

    They are left over if another host finished a training of this one, or if it was never run again. The files of a
    training that runs now stay.
    """
    for work in (job.settings.home / "work").glob("*-*"):
        if work.is_dir():
            lock = work.with_name(f"{work.name}.lock")
            try:
                with FileLock(lock, blocking=False):
                    if _is_finished(job.store, work) or _age(work) > job.settings.keep_days * 24 * 3600:
                        log.info("deleted %s: its training is finished or was given up", work)
                        shutil.rmtree(work, ignore_errors=True)
                    # While holding the lock, as `alone` does.
                    lock.unlink(missing_ok=True)
            except Timeout:
                continue


def _is_finished(store: Store, work: Path) -> bool:
    recipe, _, key = work.name.rpartition("-")
    folder = f"train/{recipe}/{key}"
    return any(store.read(f"{folder}/{attempt}/{MANIFEST}") is not None for attempt in store.list(folder))


def _age(work: Path) -> float:
    """Return the seconds since the last write in a directory."""
    return time.time() - max(path.stat().st_mtime for path in (work, *work.rglob("*")))
