"""A job: stages are found again by what decides them, and opened the same way from everywhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import Artifact, Store
from pipeline.errors import DataError, RecipeError, StoreError
from pipeline.job import OVERRIDES, Job, data_directory, keep_libraries_home, new_run_id, open_job
from pipeline.recipe import Recipe, load_recipe
from pipeline.settings import Settings, library_environment


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("nsmc", "embedded", sample=True)


class Stage:
    """A stage that counts how often it really runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, job: Job, *, version: int = 1, fields: dict[str, Any] | None = None, **inputs: Artifact) -> Any:
        return job.produce("train", version, fields=fields or {"seed": 7}, inputs=inputs, build=self.build)

    def build(self, directory: Path) -> dict[str, Any]:
        self.runs += 1
        (directory / "weights.bin").write_bytes(b"weights")
        return {"run": self.runs}


def test_a_finished_stage_is_not_run_again(make_job: Callable[..., Job], recipe: Recipe) -> None:
    stage = Stage()
    first = stage(make_job(recipe, run="monday"))
    second = stage(make_job(recipe, run="tuesday"))
    assert stage.runs == 1
    assert second.ref == first.ref
    assert second.manifest.run == "monday"
    assert second.figures == {"run": 1}


def test_what_decides_a_stage_makes_it_run_again(make_job: Callable[..., Job], recipe: Recipe) -> None:
    stage, job = Stage(), make_job(recipe)
    made = [stage(job), stage(job, version=2), stage(job, fields={"seed": 8})]
    made.append(stage(job, tokenized=made[0]))
    made.append(stage(job, tokenized=made[1]))
    assert stage.runs == 5
    assert len({artifact.key for artifact in made}) == 5
    assert made[3].manifest.inputs["tokenized"].ref == made[0].ref


def test_force_makes_a_new_attempt_and_it_wins(make_job: Callable[..., Job], recipe: Recipe) -> None:
    stage = Stage()
    first = stage(make_job(recipe))
    forced = stage(make_job(recipe, force=True))
    later = stage(make_job(recipe))
    assert stage.runs == 2
    assert forced.key == first.key
    assert later.ref == forced.ref != first.ref


def test_a_forced_input_makes_its_followers_run_again(make_job: Callable[..., Job], recipe: Recipe) -> None:
    before, after = Stage(), Stage()
    after(make_job(recipe), fields={"seed": 1}, tokenized=before(make_job(recipe)))
    forced = before(make_job(recipe, force=True))
    follower = after(make_job(recipe), fields={"seed": 1}, tokenized=forced)
    assert after.runs == 2
    assert follower.manifest.inputs["tokenized"].ref == forced.ref


def test_a_stage_that_fails_leaves_nothing(make_job: Callable[..., Job], recipe: Recipe, store: Store) -> None:
    def build(directory: Path) -> dict[str, Any]:
        (directory / "half.bin").write_bytes(b"half")
        raise DataError("nothing to train on")

    with pytest.raises(DataError, match="nothing to train on"):
        make_job(recipe).produce("train", 1, fields={}, inputs={}, build=build)
    assert store.newest("train", "nsmc") is None
    assert Stage()(make_job(recipe)).figures == {"run": 1}


def test_a_disk_that_fills_up_in_a_stage_may_be_tried_again(make_job: Callable[..., Job], recipe: Recipe) -> None:
    def build(directory: Path) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device", str(directory / "checkpoint"))

    with pytest.raises(StoreError, match="the disk is full"):
        make_job(recipe).produce("train", 1, fields={}, inputs={}, build=build)


def test_other_errors_of_a_stage_pass_as_they_are(make_job: Callable[..., Job], recipe: Recipe) -> None:
    def build(directory: Path) -> dict[str, Any]:
        return {"text": (directory / "absent.txt").read_text()}

    with pytest.raises(FileNotFoundError):
        make_job(recipe).produce("train", 1, fields={}, inputs={}, build=build)


def test_the_manifest_says_where_an_artifact_comes_from(make_job: Callable[..., Job], recipe: Recipe) -> None:
    manifest = Stage()(make_job(recipe, run="manual__2026-01-01T00:00:00+00:00")).manifest
    assert (manifest.kind, manifest.recipe, manifest.run) == ("train", "nsmc", "manual__2026-01-01T00:00:00+00:00")
    assert manifest.fields == {"seed": 7}


def test_a_job_is_opened_by_names_and_short_overrides(settings: Settings) -> None:
    job = open_job(
        "nsmc", settings=settings, overrides={"epochs": 2, "seed": None, "base_model": "", "train.warmup": 0.3}
    )
    assert (job.recipe.train.epochs, job.recipe.train.seed, job.recipe.model.base) == (2, 7, "scratch")
    assert job.recipe.train.warmup == 0.3
    assert job.recipe.sample, "no data is named, so the recipe is that of the shipped sample"
    assert not settings.home.exists(), "opening a job writes nothing"


@pytest.mark.parametrize("short", OVERRIDES)
def test_every_short_name_sets_a_field_that_exists(short: str, settings: Settings) -> None:
    value = {"base_model": "klue/bert-base", "learning_rate": 0.001}.get(short, 16)
    job = open_job("nsmc", settings=settings, overrides={short: value})
    table, field = OVERRIDES[short].split(".")
    assert getattr(getattr(job.recipe, table), field) == value


def test_a_wrong_override_stops_before_anything_runs(settings: Settings) -> None:
    with pytest.raises(RecipeError, match=r"train\.epochs.*100"):
        open_job("nsmc", settings=settings, overrides={"epochs": 101})


def test_a_store_and_a_profile_may_be_named(settings: Settings, tmp_path: Path) -> None:
    job = open_job("klue-sts", settings=settings, profile="full", store=str(tmp_path / "other"), sample=False, run="r1")
    assert (job.recipe.profile, job.recipe.sample, job.run) == ("full", False, "r1")
    assert job.store.uri == str(tmp_path / "other")


def test_data_that_are_not_there_are_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent does not exist; name one .*SAEBYEOK_DATA"):
        data_directory(settings.model_copy(update={"data": tmp_path / "absent"}))


def test_without_data_the_sample_is_written_below_home(settings: Settings) -> None:
    directory, sample = data_directory(settings)
    assert sample
    assert directory.is_relative_to(settings.home)
    assert (directory / "nsmc" / "ratings_train.txt").is_file()
    again = settings.model_copy(update={"data": directory})
    assert data_directory(again) == (directory, True), "the sample named as data is still the sample"


def test_caches_go_home_unless_the_user_sent_them_elsewhere(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in library_environment(settings.home):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", "/models/huggingface")
    keep_libraries_home(settings)
    assert os.environ["HF_HOME"] == "/models/huggingface"
    assert os.environ["WANDB_DIR"] == str(settings.home / "wandb")


def test_run_ids_sort_by_time_and_differ() -> None:
    early = new_run_id(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    late = new_run_id(datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC))
    assert early.startswith("cli-20260102T030405-")
    assert early < late
    assert new_run_id() != new_run_id()
