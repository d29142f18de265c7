"""A job is opened the same way from everywhere."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.errors import DataError, RecipeError, SettingsError
from pipeline.job import (
    OVERRIDES,
    data_directory,
    day_of,
    full_keys,
    is_by_hand,
    keep_libraries_home,
    make_home,
    new_run_id,
    open_job,
    open_store,
)
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings, library_environment


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("nsmc", "embedded", sample=True)


@pytest.mark.parametrize("home", ["/proc/saebyeok", "{file}", "{file}/home"])
def test_a_home_that_cannot_be_made_is_a_sentence(home: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = Path(home.format(file=tmp_path / "file"))
    with pytest.raises(SettingsError, match=f"SAEBYEOK_HOME is {path}, which is not writable"):
        make_home(Settings(home=path))


def test_a_job_is_opened_by_names_and_short_overrides(settings: Settings) -> None:
    job = open_job(
        "nsmc", settings=settings, overrides={"epochs": 2, "seed": None, "base_model": "", "train.warmup": 0.3}
    )
    assert (job.recipe.train.epochs, job.recipe.train.seed, job.recipe.model.base) == (2, 7, "mini")
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
    with pytest.raises(DataError, match=r"absent does not exist; set SAEBYEOK_DATA"):
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


def test_environment_spares_loopback_and_strips_secrets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.setenv("WANDB_API_KEY", " 0123\r\n")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    keep_libraries_home(settings)
    assert os.environ["no_proxy"].split(",")[:2] == ["intranet.example", "127.0.0.1"]
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
    assert os.environ["WANDB_API_KEY"] == "0123"
    assert "HF_TOKEN" not in os.environ


def test_run_ids_sort_by_time_and_differ() -> None:
    early = new_run_id(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    late = new_run_id(datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC))
    assert early.startswith("cli-20260102T030405-")
    assert early < late
    assert new_run_id() != new_run_id()


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        # Midnight in Seoul is 15:00 UTC.
        (datetime(2026, 1, 2, 14, 59, 59, 999_999, UTC), date(2026, 1, 2)),
        (datetime(2026, 1, 2, 15, 0, 0, 0, UTC), date(2026, 1, 3)),
        (datetime(2026, 1, 2, 23, 0, 0, 0, timezone(timedelta(hours=-10))), date(2026, 1, 3)),
    ],
)
def test_a_day_is_that_of_the_time_zone(moment: datetime, day: date) -> None:
    assert day_of(Settings(), moment) == day
    assert day_of(Settings(time_zone="UTC"), moment) == moment.astimezone(UTC).date()


def test_a_job_knows_todays_data_unless_it_is_backfilled(settings: Settings) -> None:
    before = day_of(settings, datetime.now(UTC))
    assert before <= open_job("nsmc", settings=settings).cutoff <= day_of(settings)
    assert open_job("nsmc", settings=settings, cutoff=date(2026, 1, 2)).cutoff == date(2026, 1, 2)


def test_a_job_is_by_hand_and_not_forced_unless_said(settings: Settings) -> None:
    job, forced = open_job("nsmc", settings=settings), open_job("nsmc", settings=settings, run="night", force=True)
    assert (job.force, forced.force) == (False, True)
    assert is_by_hand(job.run)
    assert forced.run == "night"
    assert not is_by_hand("scheduled__2026-01-02T00:00:00+00:00")
    assert not is_by_hand("manual__cli-x")


def test_what_keeps_the_recipes_own_is_left_out() -> None:
    named = {"epochs": 0, "seed": None, "base_model": "", "train.warmup": 0.0, "max_length": False}
    assert full_keys(named) == {"train.epochs": 0, "train.warmup": 0.0, "model.max_length": False}


def test_a_store_is_named_by_its_settings_or_by_hand(settings: Settings) -> None:
    assert open_store(settings).uri == settings.store_uri == str(settings.home / "store")
    named = open_store(settings, "s3://bucket/prefix")
    assert named.uri == "s3://bucket/prefix"
    # What it fetches stays at home.
    with named.draft() as draft:
        assert draft.is_relative_to(settings.home / "cache" / "store")


def test_a_home_is_made_and_kept(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "deep" / "home")
    make_home(settings)
    (settings.home / "kept").touch()
    make_home(settings)
    assert (settings.home / "kept").exists()


def test_a_home_that_may_not_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, whatever the mode says.
    for allowed in (os.W_OK, os.X_OK):
        monkeypatch.setattr(os, "access", lambda path, mode, allowed=allowed: not mode & ~allowed)
        with pytest.raises(SettingsError, match=f"SAEBYEOK_HOME is {tmp_path}, which is not writable"):
            make_home(Settings(home=tmp_path))
