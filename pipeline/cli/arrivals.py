"""The commands `saebyeok arrivals ...`: decide about daily files."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options as opt
from pipeline.cli.console import Session, session

if TYPE_CHECKING:
    from pipeline.data.acceptance import Day
    from pipeline.job import Job
    from pipeline.settings import Settings
    from pipeline.store.artifacts import Artifact

app = typer.Typer(help="Decide about daily arrivals.", no_args_is_help=True)


# A group with a single command needs a callback, or typer would leave out the command's name.
@app.callback()
def root() -> None:
    """Decide about daily arrivals."""


@app.command()
def accept(
    date: Annotated[datetime, typer.Argument(metavar="DATE", formats=["%Y-%m-%d"], help="Date of the daily file.")],
    why: Annotated[str, typer.Option(metavar="REASON", help="Reason, for the record and for data docs and report.")],
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Recipe. Default: the only one that has daily arrivals.")
    ] = None,
    data: opt.Data = None,
    store: opt.StoreUri = None,
    run_id: opt.RunId = None,
    as_json: opt.Json = False,
) -> None:
    """Use a daily file although it is unusual, from the next run on. Prints the figures of its last check.

    The decision holds for this content of the file. Later days are usual if they resemble the recent days or this one.
    Exit code 3: the file passed its check, or it has a fault that must be corrected.
    """
    with session(as_json=as_json, data=data) as current:
        from pipeline.data.acceptance import accept_day, find_day
        from pipeline.job import user_name
        from pipeline.store.acceptances import Acceptance

        if not why.strip():
            raise typer.BadParameter("must not be empty", param_hint="--why")
        name = recipe or _only_recipe(current.settings)
        job = opt.open_job_of(current.settings, name, run=run_id, store=store)
        day = find_day(job, date.date())
        given = Acceptance(by=user_name(), why=why.strip())
        _show(current, job, day, accept_day(job, day, given))


def _only_recipe(settings: Settings) -> str:
    """Return the only recipe with daily arrivals. Raises typer.BadParameter if there are several or none."""
    from pipeline.recipes.files import recipe_directories
    from pipeline.recipes.loading import load_recipe, recipe_names

    places = recipe_directories(settings.recipes)
    recipes = (load_recipe(name, settings.profile, directories=places) for name in recipe_names(places))
    names = [recipe.name for recipe in recipes if recipe.data.arrivals]
    if len(names) != 1:
        raise typer.BadParameter(
            f"name a recipe; these have daily arrivals: {', '.join(names) or 'none'}", param_hint="--recipe"
        )
    return names[0]


def _show(current: Session, job: Job, day: Day, record: Artifact) -> None:
    if current.as_json:
        measures = [item.model_dump() for item in day.checked.measures] if day.checked else []
        document = {"recipe": job.recipe.name, "file": day.file.name, "sha256": day.file.digest}
        current.document(document | {"measures": measures, **record.manifest.figures, "ref": record.ref})
        return
    for line in day.lines:
        current.line(line)
    current.line(f"{day.file.name} is used from the next run on: {record.ref}")
