"""All stages: reused by key, published completely or not at all, and one tracked run per build."""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError, StoreError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.figures import Figures
from pipeline.store.manifest import make_key
from pipeline.tracking.tracker import Tracker


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("nsmc", "embedded", sample=True)


class Count(Figures):
    """The number of a build."""

    run: int


class CountingStage:
    """A stage that counts its builds."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, job: Job, *, version: int = 1, fields: dict[str, Any] | None = None, **inputs: Artifact) -> Any:
        return find_or_build(job, "train", version, fields=fields or {"seed": 7}, inputs=inputs, build=self.build)

    def build(self, directory: Path, _: Tracker) -> Count:
        self.runs += 1
        (directory / "weights.bin").write_bytes(b"weights")
        return Count(run=self.runs)


def test_a_finished_stage_is_not_run_again(make_job: Callable[..., Job], recipe: Recipe) -> None:
    stage = CountingStage()
    first = stage(make_job(recipe, run="monday"))
    second = stage(make_job(recipe, run="tuesday"))
    assert stage.runs == 1
    assert second.ref == first.ref
    assert second.manifest.run == "monday"
    assert second.manifest.figures == {"run": 1}


def test_what_decides_a_stage_makes_it_run_again(make_job: Callable[..., Job], recipe: Recipe) -> None:
    stage, job = CountingStage(), make_job(recipe)
    made = [stage(job), stage(job, version=2), stage(job, fields={"seed": 8})]
    made.append(stage(job, tokenized=made[0]))
    made.append(stage(job, tokenized=made[1]))
    assert stage.runs == 5
    assert len({artifact.key for artifact in made}) == 5
    assert made[3].manifest.inputs["tokenized"].ref == made[0].ref


def test_force_makes_a_new_attempt_and_it_wins(make_job: Callable[..., Job], recipe: Recipe) -> None:
    stage = CountingStage()
    first = stage(make_job(recipe))
    forced = stage(make_job(recipe, force=True))
    later = stage(make_job(recipe))
    assert stage.runs == 2
    assert forced.key == first.key
    assert later.ref == forced.ref != first.ref


def test_force_rebuilds_after_clock_was_set_back(
    make_job: Callable[..., Job], recipe: Recipe, set_clock: Callable[[timedelta], None]
) -> None:
    stage = CountingStage()
    first = stage(make_job(recipe))
    set_clock(timedelta(hours=-1))
    forced = stage(make_job(recipe, force=True))
    assert stage(make_job(recipe)).ref == forced.ref != first.ref
    assert stage.runs == 2


def test_a_forced_input_makes_its_followers_run_again(make_job: Callable[..., Job], recipe: Recipe) -> None:
    before, after = CountingStage(), CountingStage()
    after(make_job(recipe), fields={"seed": 1}, tokenized=before(make_job(recipe)))
    forced = before(make_job(recipe, force=True))
    follower = after(make_job(recipe), fields={"seed": 1}, tokenized=forced)
    assert after.runs == 2
    assert follower.manifest.inputs["tokenized"].ref == forced.ref


def test_a_stage_that_fails_leaves_nothing(make_job: Callable[..., Job], recipe: Recipe, store: Store) -> None:
    def build(directory: Path, _: Tracker) -> Figures:
        (directory / "half.bin").write_bytes(b"half")
        raise DataError("nothing to train on")

    with pytest.raises(DataError, match="nothing to train on"):
        find_or_build(make_job(recipe), "train", 1, fields={}, inputs={}, build=build)
    assert store.newest("train", "nsmc") is None
    assert CountingStage()(make_job(recipe)).manifest.figures == {"run": 1}


def test_full_disk_in_stage_is_retryable(make_job: Callable[..., Job], recipe: Recipe) -> None:
    def build(directory: Path, _: Tracker) -> Figures:
        raise OSError(errno.ENOSPC, "No space left on device", str(directory / "checkpoint"))

    with pytest.raises(StoreError, match="the disk is full"):
        find_or_build(make_job(recipe), "train", 1, fields={}, inputs={}, build=build)


def test_other_stage_errors_pass_unchanged(make_job: Callable[..., Job], recipe: Recipe) -> None:
    def build(directory: Path, _: Tracker) -> Figures:
        return Count(run=int((directory / "absent.txt").read_text()))

    with pytest.raises(FileNotFoundError):
        find_or_build(make_job(recipe), "train", 1, fields={}, inputs={}, build=build)


def test_the_manifest_says_where_an_artifact_comes_from(make_job: Callable[..., Job], recipe: Recipe) -> None:
    manifest = CountingStage()(make_job(recipe, run="manual__2026-01-01T00:00:00+00:00")).manifest
    assert (manifest.kind, manifest.recipe, manifest.run) == ("train", "nsmc", "manual__2026-01-01T00:00:00+00:00")
    assert manifest.fields == {"seed": 7}
    assert manifest.key == make_key("train", 1, {"seed": 7}, {})


def test_built_artifact_is_one_run_reused_none(tracking_on: None, make_job: Callable[..., Job], recipe: Recipe) -> None:
    job = make_job(recipe)
    for _ in range(2):
        find_or_build(job, "release", 1, fields={"seed": 7}, inputs={}, build=lambda *_: Count(run=3))
    (record,) = (job.settings.home / "wandb").rglob("offline-run-*/run-*.wandb")
    content = record.read_bytes()
    for part in (b"nsmc-export", b"seed", b"run"):
        assert part in content
