"""Commands for runs, deployments and people's decisions about models."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli import options as opt
from pipeline.cli.console import session
from pipeline.errors import ArtifactError

PANEL = "Deployed models"


def add_to(app: typer.Typer) -> None:
    """Register the commands with `app`."""
    for function in (runs, report, releases, rollback, hold, release, approve, reject, publish):
        app.command(rich_help_panel=PANEL)(function)


def runs(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe. Default: all.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of runs.")] = 10,
    store: opt.StoreUri = None,
    as_json: opt.Json = False,
) -> None:
    """List the newest runs, each with its decision, the reason, its deployment and its report."""
    with session(as_json=as_json) as current:
        from pipeline.cli.output import print_runs
        from pipeline.job import open_store
        from pipeline.store.history import past_runs

        found = past_runs(open_store(current.settings, store), recipe, count)
        if as_json:
            current.document({"runs": [item.document() for item in found]})
        else:
            print_runs(current, found)


def report(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe. Default: the newest run of any.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    store: opt.StoreUri = None,
    as_json: opt.Json = False,
) -> None:
    """Print the address of the newest run's report."""
    with session(as_json=as_json) as current:
        from pipeline.job import open_store
        from pipeline.store.history import past_runs

        newest = next(iter(past_runs(open_store(current.settings, store), recipe, 1)), None)
        if newest is None:
            raise ArtifactError(f"no run{f' of {recipe}' if recipe else ''} has come to a decision yet")
        if as_json:
            current.document(newest.document())
        else:
            current.line(newest.page)
        url = newest.page if "://" in newest.page else Path(newest.page).as_uri()
        if open_it and not webbrowser.open(url):
            raise ArtifactError(f"no browser of this machine opens {url}; copy the page, or name one in BROWSER")


def releases(store: opt.StoreUri = None, as_json: opt.Json = False) -> None:
    """List the deployments, newest first; mark the live one and the target of `saebyeok rollback`."""
    with session(as_json=as_json) as current:
        from pipeline.cli.output import deployments_document, print_deployments
        from pipeline.job import open_store

        document = deployments_document(open_store(current.settings, store))
        if as_json:
            current.document(document)
        else:
            print_deployments(current, document)


def rollback(
    deployment: Annotated[
        int | None,
        typer.Argument(help="Number of a deployment. Default: the previous one. `saebyeok releases` lists them."),
    ] = None,
    store: opt.StoreUri = None,
    run_id: opt.RunId = None,
    as_json: opt.Json = False,
) -> None:
    """Serve the releases of an earlier deployment again."""
    with session(as_json=as_json) as current:
        from pipeline.alerts import alert_deployment
        from pipeline.cli.output import deployment_document
        from pipeline.deployment.deployer import rollback as roll_back
        from pipeline.job import new_run_id, open_store, user_name

        chosen = open_store(current.settings, store)
        record = roll_back(current.settings, chosen, run_id or new_run_id(), deployment, by=user_name())
        alert_deployment(record, {})
        document = deployment_document(chosen, record)
        if as_json:
            current.document(document)
            return
        current.line(f"deployment {record.number} is live: {record.reason}")
        for name, release in document["ids"].items():
            current.line(f"  {name}: {release}")


def hold(recipe: opt.RecipeArgument, why: opt.Why, store: opt.StoreUri = None, as_json: opt.Json = False) -> None:
    """Stop the promotions of a recipe until `saebyeok release`; runs still train and evaluate."""
    _hold(recipe, store, held=True, why=why, as_json=as_json)


def release(
    recipe: opt.RecipeArgument, why: opt.WhyNot = "", store: opt.StoreUri = None, as_json: opt.Json = False
) -> None:
    """Resume the promotions of a recipe that `saebyeok hold` stopped."""
    _hold(recipe, store, held=False, why=why, as_json=as_json)


def _hold(recipe: str, store: str | None, *, held: bool, why: str, as_json: bool) -> None:
    with session(as_json=as_json) as current:
        from pipeline.job import open_store, user_name
        from pipeline.recipes.files import recipe_directories
        from pipeline.recipes.loading import find_recipe
        from pipeline.store.verdicts import change_hold

        find_recipe(recipe, recipe_directories(current.settings.recipes))
        record = change_hold(open_store(current.settings, store), recipe, held=held, by=user_name(), why=why)
        if as_json:
            current.document(record.document())
        else:
            current.line(str(record))


def approve(
    recipe: opt.RecipeArgument,
    why: opt.WhyNot = "",
    model: opt.Model = None,
    store: opt.StoreUri = None,
    as_json: opt.Json = False,
) -> None:
    """Allow the deployment of a model that was rejected, was rolled back from, or waits for an approval."""
    _judge(recipe, store, model, "approved", why, as_json=as_json)


def reject(
    recipe: opt.RecipeArgument,
    why: opt.Why,
    model: opt.Model = None,
    store: opt.StoreUri = None,
    as_json: opt.Json = False,
) -> None:
    """Keep a model from being deployed by any later run, until it is approved."""
    _judge(recipe, store, model, "rejected", why, as_json=as_json)


def publish(
    recipe: opt.RecipeArgument,
    to: Annotated[
        str, typer.Option(metavar="DIR|hf://OWNER/NAME", help="New directory, or repository on the Hugging Face hub.")
    ],
    release: opt.Release = None,
    store: opt.StoreUri = None,
    as_json: opt.Json = False,
) -> None:
    """Publish the deployed release for transformers or sentence-transformers, with a model card and ONNX files."""
    with session(as_json=as_json) as current:
        from pipeline.cli.predict import champion
        from pipeline.publishing.publish import publish as publish_release

        job = opt.open_job_of(current.settings, recipe, store=store)
        chosen = champion(job.store, recipe, release)
        place = publish_release(job.recipe, chosen, to)
        if as_json:
            current.document({"recipe": recipe, "release": chosen.ref, "published": place})
        else:
            current.line(f"published {chosen.ref} to {place}")


def _judge(
    recipe: str,
    store: str | None,
    model: str | None,
    verdict: Literal["approved", "rejected"],
    why: str,
    *,
    as_json: bool,
) -> None:
    with session(as_json=as_json) as current:
        from pipeline.job import new_run_id, open_store, user_name
        from pipeline.recipes.files import recipe_directories
        from pipeline.recipes.loading import find_recipe
        from pipeline.store.verdicts import find_model, record_verdict

        find_recipe(recipe, recipe_directories(current.settings.recipes))
        found = find_model(open_store(current.settings, store), recipe, model)
        record = record_verdict(found, verdict, by=user_name(), run=new_run_id(), why=why)
        if as_json:
            current.document(record.document())
        else:
            current.line(f"{verdict} {record.trained}")
