"""Options that several commands share, and the conversion of their values."""

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

RECIPE_PANEL = "Recipe (default: the recipe's own value)"

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a recipe, such as nsmc. `saebyeok recipes` lists them.")
]
Profile = Annotated[str | None, typer.Option(help="Recipe profile: embedded (CPU, minutes) or full (GPU).")]
Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory with the published files. Default: SAEBYEOK_DATA, else the sample."),
]
StoreUri = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="Artifact store: a directory or s3://bucket/prefix.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any recipe field, such as train.warmup=0.1.",
        rich_help_panel=RECIPE_PANEL,
    ),
]
Overrides = Annotated[
    Path | None,
    typer.Option(
        "--overrides",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="TOML file with recipe fields, such as `saebyeok tune` writes. --set overrides it.",
        rich_help_panel=RECIPE_PANEL,
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(help="Base model: mini, a hub id, a local directory, or scratch.", rich_help_panel=RECIPE_PANEL),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training data.", rich_help_panel=RECIPE_PANEL)]
LearningRate = Annotated[
    float | None, typer.Option(help="Peak learning rate, such as 5e-5.", rich_help_panel=RECIPE_PANEL)
]
BatchSize = Annotated[int | None, typer.Option(help="Rows per training step.", rich_help_panel=RECIPE_PANEL)]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Maximum number of tokens per input, special tokens included.", rich_help_panel=RECIPE_PANEL),
]
Seed = Annotated[int | None, typer.Option(help="Random seed of the training.", rich_help_panel=RECIPE_PANEL)]
Force = Annotated[bool, typer.Option("--force", help="Run again even if the store has a finished result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on standard output.")]
Date = Annotated[
    datetime | None,
    typer.Option(
        "--date",
        formats=["%Y-%m-%d"],
        help="Date of the run in Seoul; the run sees only data that arrived before it. Default: today.",
        show_default=False,
    ),
]
RunId = Annotated[str | None, typer.Option("--run", metavar="ID", help="Id of the run. Default: a new one.")]
InputRefs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="REF", help="Input artifact, such as train/nsmc/<key>/<attempt>. Default: the newest."
    ),
]
Release = Annotated[
    str | None, typer.Option(metavar="ID", help="Id or ref of the release to use. Default: the deployed one.")
]


Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason, shown wherever it has an effect.")]
WhyNot = Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason. Default: none.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="ID", help="Id of a release, or ref of a decision or trained model. Default: the newest decision's."
    ),
]


def overrides(sets: Sequence[str] | None, file: Path | None = None, **short: Any) -> dict[str, Any]:
    """Return the recipe overrides from `--overrides FILE`, `--set KEY=VALUE` and the dedicated options (`short`).

    Later sources win. A value is parsed as TOML (`7`, `0.1`, `true`, `[1, 2]`) and kept as text if it is not TOML.
    Raises RecipeError if the file is not TOML, typer.BadParameter if an item of `sets` is not KEY=VALUE.
    """
    chosen = read_overrides(file) if file else {}
    for item in sets or ():
        key, separator, value = item.partition("=")
        if not (separator and key.strip()):
            raise typer.BadParameter(f"{item!r} is not KEY=VALUE, such as train.epochs=2", param_hint="--set")
        chosen[key.strip()] = parse_value(value.strip())
    return chosen | {name: value for name, value in short.items() if value is not None}


def open_job_of(settings: Settings, name: str, **chosen: Any) -> Job:
    """Return `pipeline.job.open_job(name, ...)`; the module is imported only when a command runs."""
    from pipeline.job import open_job, user_name

    return open_job(name, settings=settings, by=user_name(), **chosen)
