"""Job: one recipe in one run, with the store and the settings that every stage gets."""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.errors import DataError, SettingsError
from pipeline.loopback import without_proxy
from pipeline.recipes.files import recipe_directories
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings, library_environment
from pipeline.store.artifacts import Store

#: Short names of overrides (command line, trigger form), and the recipe fields that they set.
OVERRIDES = {
    "base_model": "model.base",
    "max_length": "model.max_length",
    "epochs": "train.epochs",
    "learning_rate": "train.learning_rate",
    "batch_size": "train.batch_size",
    "seed": "train.seed",
}
#: End of the error message about a HOME that cannot be created or written.
UNUSABLE = "which is not writable. Choose another directory or fix its permissions"
#: Prefix of the ids of runs that Airflow did not start.
BY_HAND = "cli-"
#: Variables with secrets that libraries read.
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY")


def day_of(settings: Settings, moment: datetime | None = None) -> date:
    """Return the date at `moment` (timezone-aware), or now, in the time zone of the settings."""
    return (moment or datetime.now(UTC)).astimezone(ZoneInfo(settings.time_zone)).date()


@dataclass(frozen=True)
class Job:
    """The arguments of a stage in addition to its input artifacts."""

    recipe: Recipe
    settings: Settings
    store: Store
    run: str
    force: bool = False
    #: Date of the run in the settings' time zone; the run sees only data that arrived before it.
    cutoff: date = field(kw_only=True)
    #: The person who started the run; None for a scheduled one.
    by: str | None = None


def open_store(settings: Settings, uri: str | None = None) -> Store:
    """Return the store at `uri`, or the store of `settings`."""
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
    by: str | None = None,
) -> Job:
    """Return a job for recipe `name`; reads only the recipe, and writes nothing.

    `overrides` maps short names (`OVERRIDES`) or dotted keys to values; None and "" keep the recipe's value.
    `store` is a URI. `sample` tells whether the data is the shipped sample; None checks `settings.data`. `cutoff` is
    the date of the run; None is today. `by` names the person who started it.
    Raises RecipeError with file, key and allowed values.
    """
    recipe = load_recipe(
        name,
        profile or settings.profile,
        sample=_names_sample(settings) if sample is None else sample,
        overrides=full_keys(overrides or {}),
        directories=recipe_directories(settings.recipes),
    )
    day = cutoff or day_of(settings)
    return Job(recipe, settings, open_store(settings, store), run or new_run_id(), force, by, cutoff=day)


def full_keys(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `overrides` with dotted keys only, without the ones that keep the recipe's value (None or "")."""
    return {OVERRIDES.get(key, key): value for key, value in overrides.items() if value not in (None, "")}


def make_home(settings: Settings) -> None:
    """Create HOME if it is absent. Raises SettingsError if it cannot be created or is not writable."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        writable = os.access(settings.home, os.W_OK | os.X_OK)
    except OSError as error:
        raise SettingsError(f"SAEBYEOK_HOME is {settings.home}, {UNUSABLE} ({error.strerror})") from error
    if not writable:
        raise SettingsError(f"SAEBYEOK_HOME is {settings.home}, {UNUSABLE}")


def data_directory(settings: Settings) -> tuple[Path, bool]:
    """Return the directory of the published files, and whether they are the shipped sample.

    Without `settings.data` the sample is written below `home`, once; it is seeded, so it is always the same.
    Raises DataError if `settings.data` is not a directory.
    """
    if settings.data is None:
        from pipeline.sample import write_sample

        return write_sample(settings.home / "sample"), True
    if not settings.data.is_dir():
        raise DataError(
            f"data directory {settings.data} does not exist; set SAEBYEOK_DATA or --data to the directory of the "
            "published files, or unset it to use the sample"
        )
    return settings.data, _names_sample(settings)


def _names_sample(settings: Settings) -> bool:
    if settings.data is None:
        return True
    from pipeline.sample import is_sample

    return is_sample(settings.data)


def keep_libraries_home(settings: Settings) -> None:
    """Prepare the environment for all libraries and child processes; call this before the libraries are imported.

    Caches are below `SAEBYEOK_HOME`, no proxy catches calls to this machine, and secrets lose surrounding white space.
    """
    for name, value in library_environment(settings.home).items():
        os.environ.setdefault(name, value)
    os.environ.update(without_proxy(os.environ))
    # A secret from a file or from `echo` ends in a line feed, which no HTTP header may contain.
    os.environ.update({name: os.environ[name].strip() for name in SECRETS if name in os.environ})


def new_run_id(now: datetime | None = None) -> str:
    """Return a new id for a run that Airflow did not start."""
    return f"{BY_HAND}{now or datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def user_name() -> str:
    """Return the name of the user of this process, for records of who asked."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def is_by_hand(run: str) -> bool:
    """Return whether a run was started on the command line, where only the person who started it saw its result."""
    return run.startswith(BY_HAND)
