"""A job: one recipe in one run, with the store and settings that every stage is given."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.errors import DataError, SettingsError
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings, library_environment
from pipeline.store.artifacts import Store

#: What a run may be asked for by a short name (command line, trigger form), and the recipe field it sets.
OVERRIDES = {
    "base_model": "model.base",
    "max_length": "model.max_length",
    "epochs": "train.epochs",
    "learning_rate": "train.learning_rate",
    "batch_size": "train.batch_size",
    "seed": "train.seed",
}
#: What is said of a HOME that cannot be made or written.
UNUSABLE = "which cannot be written: name another directory, or mend its permissions"
#: Whose days they are by which data arrive.
SEOUL = ZoneInfo("Asia/Seoul")
#: How the ids of runs begin that Airflow did not start.
BY_HAND = "cli-"


def day_in_seoul(moment: datetime | None = None) -> date:
    """The day in Seoul of `moment` (with a time zone), or of now."""
    return (moment or datetime.now(UTC)).astimezone(SEOUL).date()


@dataclass(frozen=True)
class Job:
    """What a stage is given beside its inputs."""

    recipe: Recipe
    settings: Settings
    store: Store
    run: str
    force: bool = False
    #: The run's date in Seoul: what arrived before it is known to it, and nothing later.
    cutoff: date = field(default_factory=day_in_seoul)


def open_store(settings: Settings, uri: str | None = None) -> Store:
    """The store of `settings`, or the one at `uri`."""
    return Store(uri or settings.store_uri, settings.home / "cache" / "store")


def open_job(
    name: str,
    *,
    settings: Settings,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    run: str | None = None,
    force: bool = False,
    store: str | None = None,
    sample: bool | None = None,
    cutoff: date | None = None,
) -> Job:
    """A job for recipe `name`; reads the recipe only, and writes nothing.

    `overrides` are short names (`OVERRIDES`) or dotted keys to values; None and "" keep the recipe's own.
    `store` is a URI. `sample` says whether the data are the shipped sample, for a machine that has no data;
    None looks at `settings.data`. `cutoff` is the run's date in Seoul, None today's.
    Raises RecipeError naming file, key and what is allowed.
    """
    recipe = load_recipe(
        name,
        profile or settings.profile,
        sample=_names_sample(settings) if sample is None else sample,
        overrides=full_keys(overrides or {}),
    )
    return Job(recipe, settings, open_store(settings, store), run or new_run_id(), force, cutoff or day_in_seoul())


def full_keys(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` by dotted keys alone, without those that keep the recipe's own."""
    return {OVERRIDES.get(key, key): value for key, value in overrides.items() if value not in (None, "")}


def make_home(settings: Settings) -> None:
    """Make HOME where it is absent. Raises SettingsError where that cannot be, or it cannot be written."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        writable = os.access(settings.home, os.W_OK | os.X_OK)
    except OSError as error:
        raise SettingsError(f"SAEBYEOK_HOME is {settings.home}, {UNUSABLE} ({error.strerror})") from error
    if not writable:
        raise SettingsError(f"SAEBYEOK_HOME is {settings.home}, {UNUSABLE}")


def data_directory(settings: Settings) -> tuple[Path, bool]:
    """The directory of the published files, and whether they are the shipped sample.

    With no data named the sample is written below `home` (once; it is seeded, so always the same).
    Raises DataError where `settings.data` is not a directory.
    """
    if settings.data is None:
        from pipeline.sample import write_sample

        return write_sample(settings.home / "sample"), True
    if not settings.data.is_dir():
        raise DataError(
            f"data directory {settings.data} does not exist; name one that holds the published files "
            "(SAEBYEOK_DATA, --data), or none for the sample"
        )
    return settings.data, _names_sample(settings)


def _names_sample(settings: Settings) -> bool:
    if settings.data is None:
        return True
    from pipeline.sample import is_sample

    return is_sample(settings.data)


def keep_libraries_home(settings: Settings) -> None:
    """Point every library's caches below `SAEBYEOK_HOME`; call before the libraries are imported."""
    for name, value in library_environment(settings.home).items():
        os.environ.setdefault(name, value)


def new_run_id(now: datetime | None = None) -> str:
    """A run id for a pass that Airflow did not start."""
    return f"{BY_HAND}{now or datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def is_by_hand(run: str) -> bool:
    """Whether a run was started on the command line, where whoever started it saw what came of it, and nobody else."""
    return run.startswith(BY_HAND)
