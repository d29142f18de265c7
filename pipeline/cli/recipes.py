"""Commands for recipes: draft one from a data file, list and check them, and propose thresholds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options as opt
from pipeline.cli.ask import choose, is_interactive
from pipeline.cli.console import say, session
from pipeline.errors import FAILED, RecipeError

if TYPE_CHECKING:
    from pipeline.drafting.inspection import Inspection
    from pipeline.settings import Settings


PANEL = "Recipes"


def add_to(app: typer.Typer) -> None:
    """Register the commands with `app`."""
    for function in (new, recipes, check, propose_floors):
        app.command(rich_help_panel=PANEL)(function)


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the recipe: lower-case letters, digits, hyphens.")
    ],
    file: Annotated[
        Path, typer.Option("--from", metavar="FILE", help="Data file: CSV, TSV, JSON, JSON Lines or Parquet.")
    ],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COLUMN", help="Text column; twice for pairs. Default: a guess."),
    ] = None,
    label: Annotated[
        str, typer.Option(metavar="COLUMN", help="Label column. Default: a guess.", show_default=False)
    ] = "",
    ids: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="Column of unique ids. Default: a guess.", show_default=False)
    ] = "",
    scores: Annotated[
        bool | None,
        typer.Option("--scores/--classes", help="Whether labels are numbers on a scale. Default: a guess."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Directory of your recipes. Default: the last one in SAEBYEOK_RECIPES."
        ),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Look at a data file, and draft a recipe with its suite and stubs of behavioural tests. Nothing is overwritten.

    On a terminal it asks about columns and kind if there is no clear guess; otherwise the likeliest guess counts.
    If there is no configuration file yet, one is written that names the directories of recipes and data.
    """
    with session(as_json=as_json) as current:
        from pipeline.drafting.draft import draft_recipe
        from pipeline.drafting.inspection import Chosen, inspect
        from pipeline.recipes.files import NAME, NAMING

        if not NAME.fullmatch(name):
            raise typer.BadParameter(f"{name!r} is not the name of a recipe: {NAMING}", param_hint="NAME")
        ask = choose if is_interactive() and not as_json else None
        found = inspect(file, Chosen(tuple(text or ()), label, ids, scores), ask)
        directory = _directory(current.settings, into)
        draft = draft_recipe(name, _below(current.settings, file), found)
        written = _write(directory, draft.files)
        config = _configure(current.settings, directory, file)
        document = _document(name, found, written, config)
        if as_json:
            current.document(document)
            return
        for line in _looked(document, written, config):
            current.line(line)


def _document(name: str, found: Inspection, written: list[Path], config: Path | None) -> dict[str, Any]:
    return {
        "recipe": name,
        "files": [str(path) for path in written],
        "config": str(config) if config else None,
        "rows": found.rows,
        "texts": list(found.texts),
        "label": found.label,
        "id": found.id,
        "labels": found.labels,
        "score_range": found.score_range,
    }


def _directory(settings: Settings, into: Path | None) -> Path:
    from pipeline.config_file import read_config

    own = [Path(item) for item in settings.recipes.split(os.pathsep) if item]
    # Next to the configuration file, which will name it.
    return into.expanduser().resolve() if into else own[-1] if own else read_config().path.parent / "recipes"


def _below(settings: Settings, file: Path) -> str:
    """Return the path of a data file below the data directory, or below its own directory."""
    path = file.expanduser().resolve()
    data = settings.data
    return path.relative_to(data).as_posix() if data and path.is_relative_to(data) else path.name


def _write(directory: Path, files: dict[str, str]) -> list[Path]:
    paths = {directory / place: text for place, text in files.items()}
    if there := [str(path) for path in paths if path.exists()]:
        raise RecipeError(f"{', '.join(there)} exists; choose another name, or move it away")
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(paths)


def _configure(settings: Settings, directory: Path, file: Path) -> Path | None:
    """Write a configuration file with the directories if there is none, or an empty one; return its path, or None."""
    from pipeline.config_file import read_config

    path = read_config().path
    if path.exists() and not (path.is_file() and path.stat().st_size == 0):
        return None
    data = settings.data or file.expanduser().resolve().parent
    lines = [f"recipes = [{json.dumps(str(directory))}]", f"data = {json.dumps(str(data))}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _looked(document: dict[str, Any], written: list[Path], config: Path | None) -> list[str]:
    texts = " and ".join(document["texts"])
    labels = ", ".join(f"{name} {count:,}" for name, count in document["labels"].items())
    scores = f"scores from {document['score_range'][0]:g} to {document['score_range'][1]:g}" if not labels else ""
    return [
        f"{document['rows']:,} rows; text: {texts}; label: {document['label']} ({labels or scores}); "
        f"id: {document['id'] or 'file and line'}",
        *(f"wrote {path}" for path in written),
        *([f"wrote {config}, which names the directories of recipes and data"] if config else []),
        f"next: saebyeok check {document['recipe']}, then saebyeok propose-floors {document['recipe']} --write",
    ]


def recipes(as_json: opt.Json = False) -> None:
    """List the recipes, and where each one is; name the files that are ignored because of their name."""
    with session(as_json=as_json) as current:
        from pipeline.recipes.files import NAMING, misnamed_files, recipe_directories, recipe_files, shown
        from pipeline.recipes.loading import load_recipe

        places = recipe_directories(current.settings.recipes)
        found = []
        for name, path in recipe_files(places).items():
            try:
                recipe = load_recipe(name, current.settings.profile, directories=places)
                state = {"title": recipe.title, "kind": recipe.kind, "inputs": recipe.inputs, "problem": None}
            except RecipeError as error:
                state = {"title": name, "kind": None, "inputs": None, "problem": str(error)}
            found.append({"recipe": name, "file": str(path), **state})
        ignored = [shown(path) for path in misnamed_files(places)]
        if as_json:
            current.document({"recipes": found, "ignored": ignored})
            return
        for item in found:
            about = f"{item['kind']} of {item['inputs']}s: {item['title']} ({item['file']})"
            current.line(f"{item['recipe']:<16} {f'PROBLEM: {problem}' if (problem := item['problem']) else about}")
        for file in ignored:
            current.line(f"{file} is ignored; {NAMING}")


def check(
    recipe: opt.RecipeArgument,
    profile: opt.Profile = None,
    data: opt.Data = None,
    sets: opt.Sets = None,
    overrides: opt.Overrides = None,
    as_json: opt.Json = False,
) -> None:
    """Check a recipe, its suite and its data files without running anything. Exit code 1: there is a problem."""
    with session(as_json=as_json, data=data) as current:
        from pipeline.drafting.checking import check_recipe

        job = opt.open_job_of(current.settings, recipe, profile=profile, overrides=opt.overrides(sets, overrides))
        report = check_recipe(job)
        if as_json:
            current.document(report.document)
        else:
            for line in report.lines:
                current.line(line)
        if report.problems:
            raise typer.Exit(FAILED)


def propose_floors(
    recipe: opt.RecipeArgument,
    trainings: Annotated[int, typer.Option(min=2, max=20, help="Number of trainings, each with its own seed.")] = 3,
    write: Annotated[
        bool, typer.Option("--write", help="Append the table to the recipe, if it has no [gate].")
    ] = False,
    profile: opt.Profile = None,
    data: opt.Data = None,
    store: opt.StoreUri = None,
    sets: opt.Sets = None,
    overrides: opt.Overrides = None,
    as_json: opt.Json = False,
) -> None:
    """Train a recipe with several seeds, and propose the thresholds of its gate: the lower ends of 95% intervals."""
    with session(as_json=as_json, data=data) as current:
        from pipeline.drafting.draft import append_table
        from pipeline.drafting.floors import propose_floors as propose
        from pipeline.recipes.files import recipe_directories
        from pipeline.recipes.loading import find_recipe

        chosen = opt.overrides(sets, overrides)
        job = opt.open_job_of(current.settings, recipe, profile=profile, overrides=chosen, store=store)
        path = find_recipe(recipe, recipe_directories(current.settings.recipes))
        if write:
            # Before the trainings, which take minutes.
            append_table(path, "gate", "")
        proposal = propose(job, trainings, say)
        if write:
            append_table(path, "gate", proposal.toml)
        if as_json:
            figures = {"floors": proposal.floors, "margin": proposal.margin, "behaviour": proposal.behaviour}
            current.document({"recipe": recipe, "written": str(path) if write else None, **figures})
            return
        current.line(proposal.toml.rstrip())
        if write:
            current.line(f"wrote {path}")
