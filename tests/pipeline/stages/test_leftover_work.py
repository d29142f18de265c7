"""Checkpoints that no retry on this host needs are deleted; those of running and interrupted trainings stay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.leftover_work import delete_leftover_work
from pipeline.stages.train import alone
from pipeline.store.artifacts import MANIFEST
from tests.support.tiny_releases import make_trained


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(load_recipe("nsmc", "embedded"))


def interrupted(job: Job, key: str, days: float = 0.0) -> Path:
    """Write a checkpoint of the training with this key, and return its directory."""
    work = job.settings.home / "work" / f"nsmc-{key}"
    (work / "checkpoint-1").mkdir(parents=True)
    (work / "checkpoint-1" / "optimizer.pt").write_bytes(b"state")
    written = time.time() - days * 24 * 3600
    for path in (*work.rglob("*"), work):
        os.utime(path, (written, written))
    return work


def test_checkpoints_of_a_finished_training_are_deleted(job: Job) -> None:
    key = make_trained(job.store).key
    finished, running = interrupted(job, key), interrupted(job, "1" * 16)
    delete_leftover_work(job)
    assert list((job.settings.home / "work").iterdir()) == [running]
    assert not finished.exists()


def test_incomplete_artifact_finishes_no_training(job: Job) -> None:
    trained = make_trained(job.store)
    (trained.path / MANIFEST).unlink()
    work = interrupted(job, trained.key)
    delete_leftover_work(job)
    assert work.exists()


def test_checkpoints_are_deleted_after_the_retention_period(job: Job) -> None:
    days = job.settings.keep_days
    kept, old = interrupted(job, "1" * 16, days - 0.1), interrupted(job, "2" * 16, days + 0.1)
    delete_leftover_work(job)
    assert (kept.exists(), old.exists()) == (True, False)


def test_checkpoints_of_a_running_training_stay(job: Job) -> None:
    work = interrupted(job, make_trained(job.store).key)
    with alone(work):
        delete_leftover_work(job)
        assert work.exists()
    delete_leftover_work(job)
    assert not work.exists()
