"""Options that several commands share, and what they are made into."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.recipes.overrides import parse_value, read_overrides

if TYPE_CHECKING:
    from pipeline.job import Job
    from pipeline.settings import Settings

RECIPE_PANEL = "Recipe (empty keeps its own)"

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe: nsmc, klue-sts.")]
Profile = Annotated[str | None, typer.Option(help="Recipe profile: embedded (CPU, minutes) or full (GPU).")]
Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory with the published files; none here or in SAEBYEOK_DATA: the sample."),
]
StoreUri = Annotated[str | None, typer.Option("--store", metavar="URI", help="A directory or s3://bucket/prefix.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any recipe field, such as train.warmup=0.1.", rich_help_panel=RECIPE_PANEL
    ),
]
Overrides = Annotated[
    Path | None,
    typer.Option(
        "--overrides",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Recipe fields from a TOML file, such as `saebyeok tune` writes; --set wins.",
        rich_help_panel=RECIPE_PANEL,
    ),
]
BaseModel = Annotated[
    str | None, typer.Option(help="mini, a hub id, a local directory, or scratch.", rich_help_panel=RECIPE_PANEL)
]
Epochs = Annotated[int | None, typer.Option(rich_help_panel=RECIPE_PANEL)]
LearningRate = Annotated[float | None, typer.Option(rich_help_panel=RECIPE_PANEL)]
BatchSize = Annotated[int | None, typer.Option(rich_help_panel=RECIPE_PANEL)]
MaxLength = Annotated[int | None, typer.Option(help="Tokens, special ones included.", rich_help_panel=RECIPE_PANEL)]
Seed = Annotated[int | None, typer.Option(rich_help_panel=RECIPE_PANEL)]
Force = Annotated[bool, typer.Option("--force", help="Do it again even if it is done.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else there.")]
Date = Annotated[
    datetime | None,
    typer.Option(
        "--date",
        formats=["%Y-%m-%d"],
        help="The run's day in Seoul: it knows what arrived before it. Empty: today.",
        show_default=False,
    ),
]
RunId = Annotated[str | None, typer.Option("--run", metavar="ID", help="Id of the run; empty makes one.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="REF", help="An input artifact, such as train/nsmc/<key>/<attempt>; else newest."),
]
Release = Annotated[
    str | None, typer.Option(metavar="REF", help="A release to ask instead of the deployed one, by its ref.")
]


def overrides(sets: Sequence[str] | None, file: Path | None = None, **short: Any) -> dict[str, Any]:
    """Recipe overrides from `--overrides FILE`, `--set KEY=VALUE` and the options with names of their own.

    Later ones win. Values are TOML (`7`, `0.1`, `true`, `[1, 2]`), and text where they are no TOML.
    Raises RecipeError where the file is not TOML.
    """
    chosen = read_overrides(file) if file else {}
    for item in sets or ():
        key, separator, value = item.partition("=")
        if not (separator and key.strip()):
            raise typer.BadParameter(f"{item!r} is not KEY=VALUE, such as train.epochs=2", param_hint="--set")
        chosen[key.strip()] = parse_value(value.strip())
    return chosen | {name: value for name, value in short.items() if value is not None}


def open_job_of(settings: Settings, name: str, **chosen: Any) -> Job:
    """`pipeline.job.open_job`, imported only when a command runs."""
    from pipeline.job import open_job

    return open_job(name, settings=settings, **chosen)
