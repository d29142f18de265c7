"""Commands for deployments, encoders, recipe tuning, this machine and the local stack."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli import arrivals
from pipeline.cli import options as opt
from pipeline.cli.console import say, session
from pipeline.errors import FAILED, ArtifactError

STACK, ARRIVALS = "The local stack", "Daily arrivals"
SERVED, OWN, BETTER, PLACE = "Deployed models", "Pretraining", "Hyperparameter search", "This machine"


def add_to(app: typer.Typer) -> None:
    """Register the commands with `app`."""
    app.add_typer(arrivals.app, name="arrivals", rich_help_panel=ARRIVALS)
    for panel, functions in (
        (SERVED, (runs, report, releases, rollback, hold, release, approve, reject, publish)),
        (OWN, (pretrain,)),
        (BETTER, (tune,)),
        (PLACE, (doctor, prune, sample, sync, test_alert)),
        (STACK, (up, down, status)),
    ):
        for function in functions:
            app.command(rich_help_panel=panel)(function)


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
    """Allow a model to be deployed that was rejected, rolled back from, or that waits for an approval."""
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


def pretrain(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", exists=True, dir_okay=False, help="Raw text files, one text per line; .gz files too."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Output directory. An interrupted run in it is resumed.")
    ],
    encoder: Annotated[
        str, typer.Option(help="Encoder configuration: mini, or a TOML file in the same format.")
    ] = "mini",
    start: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Pretrained encoder to continue from."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps. Default: the encoder configuration's.")
    ] = None,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    as_json: opt.Json = False,
) -> None:
    """Pretrain a vocabulary and an encoder on raw texts; use DIR/encoder as `--base-model`."""
    with session(as_json=as_json) as current:
        from pipeline.pretraining.spec import load_encoder

        # Before the imports that take seconds, so that a mistake is reported at once.
        spec = load_encoder(encoder, steps=steps)
        from pipeline.pretraining.pretrain import pretrain as train_encoder

        directory = out.expanduser().resolve()
        document = train_encoder(
            spec, files, directory, start=start, threads=current.settings.threads, save_steps=save_steps
        )
        if as_json:
            current.document(document)
            return
        current.line(f"{document['encoder']}: {document['parameters']:,} parameters, {document['steps']:,} steps")
        current.line(f"to fine-tune it: saebyeok run nsmc --base-model {document['encoder']}")


def tune(
    recipe: opt.RecipeArgument,
    trials: Annotated[
        int, typer.Option(min=1, help="Total number of trials, including finished ones from earlier runs.")
    ] = 20,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=LOW..HIGH|A,B",
            help="Field to search instead of the defaults: train.learning_rate=1e-4..1e-3, train.epochs=1,2,3.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="File for the best values, for `--overrides`. Default: in HOME."
        ),
    ] = None,
    profile: opt.Profile = None,
    data: opt.Data = None,
    store: opt.StoreUri = None,
    run_id: opt.RunId = None,
    date: opt.Date = None,
    sets: opt.Sets = None,
    overrides: opt.Overrides = None,
    as_json: opt.Json = False,
) -> None:
    """Search for better hyperparameters on the validation split. Rerun the command to resume an interrupted search.

    The first trial uses the recipe unchanged. Without --search, the search varies learning rate, epochs, batch size,
    warm-up, weight decay and, for a pretrained base model, layer decay around the recipe's values.
    """
    with session(as_json=as_json, data=data) as current:
        from pipeline.tuning.space import open_search

        chosen = opt.overrides(sets, overrides)
        job = opt.open_job_of(
            current.settings,
            recipe,
            profile=profile,
            overrides=chosen,
            run=run_id,
            store=store,
            cutoff=date.date() if date else None,
        )
        # Before the imports that take seconds, so that a mistake is reported at once.
        search = open_search(job, chosen, fields or [])
        for key, field in search.space.items():
            say(f"searching {key}: {field} (recipe: {search.own[key]})")
        from pipeline.cli.output import print_tuned
        from pipeline.tuning.search import tune as tune_recipe

        document = tune_recipe(search, trials, out.expanduser().resolve() if out else None, say)
        if as_json:
            current.document(document)
        else:
            print_tuned(current, document)


def doctor(store: opt.StoreUri = None, as_json: opt.Json = False) -> None:
    """Check this machine (versions, GPU, disk, ports, store, service, tracking) and suggest fixes."""
    with session(as_json=as_json) as current:
        from pipeline.cli.doctor import diagnose
        from pipeline.cli.output import print_findings

        findings = diagnose(current.settings, store)
        broken = sum(finding.state == "problem" for finding in findings)
        if as_json:
            current.document({"problems": broken, "checks": [finding.model_dump() for finding in findings]})
        else:
            print_findings(current, findings)
        if broken:
            raise typer.Exit(FAILED)


def prune(
    store: opt.StoreUri = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted and what is kept, without deleting.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Delete artifacts that no retained deployment or future run needs (SAEBYEOK_KEEP_DEPLOYMENTS, _KEEP_DAYS)."""
    with session(as_json=as_json) as current:
        from pipeline.cli.output import kept_document, print_outdated
        from pipeline.deployment.retention import delete_outdated, find_outdated
        from pipeline.job import open_store

        place = open_store(current.settings, store)
        outdated = find_outdated(place, current.settings)
        if not dry_run:
            delete_outdated(place, current.settings, outdated)
        if as_json:
            refs = [artifact.ref for artifact in outdated.artifacts]
            document = {"deleted": [] if dry_run else refs, "outdated": refs, "bytes": outdated.size}
            current.document(document | {"kept": kept_document(outdated)})
        else:
            print_outdated(current, outdated, dry_run=dry_run)


def sample(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to write to; created if absent.")],
    as_json: opt.Json = False,
) -> None:
    """Write Saebyeok's synthetic sample data, in the format of the published files."""
    with session(as_json=as_json) as current:
        from pipeline.sample import write_sample

        written = write_sample(directory.expanduser().resolve())
        if as_json:
            current.document({"directory": str(written)})
        else:
            current.line(f"wrote sample data to {written}; next, for example: saebyeok run nsmc --data {written}")


def sync(store: opt.StoreUri = None, as_json: opt.Json = False) -> None:
    """Upload offline records to Weights & Biases: runs, data sets, releases and the champion of each recipe.

    Completed uploads are skipped. Exit code 1: an upload failed; rerun the command to continue.
    """
    with session(as_json=as_json) as current:
        from pipeline.cli.output import print_synced
        from pipeline.job import open_store
        from pipeline.tracking.sync import sync as sync_all

        synced = sync_all(current.settings, open_store(current.settings, store))
        if as_json:
            current.document(synced.model_dump(mode="json") | {"failed": synced.failed})
        else:
            print_synced(current, synced)
        if synced.failed:
            raise typer.Exit(FAILED)


def test_alert() -> None:
    """Send a test alert to SAEBYEOK_ALERT_WEBHOOK. Exit code 1: the webhook does not accept it."""
    with session() as current:
        from pipeline.alerts import send_test_alert

        send_test_alert(current.settings)
        current.line("SAEBYEOK_ALERT_WEBHOOK accepted a test alert")


def up(
    data: opt.Data = None,
    run: Annotated[
        bool | None,
        typer.Option(
            "--run/--no-run",
            help="Unpause nightly_retrain and run it, or never run it. Default: run it only if the store is empty.",
        ),
    ] = None,
    begun: Annotated[float | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start Airflow and the service, retrain every recipe once if the store is empty, and print the results.

    Running processes are reused, and a run in progress is followed. Exit code 1: a task failed. Exit code 3: a gate
    refused a model.
    """
    with session(data=data) as current:
        from pipeline.stack import commands

        raise typer.Exit(commands.up(current.settings, current.stdout, run=run, begun=begun))


def down() -> None:
    """Stop the processes that `up` started, and no others."""
    with session() as current:
        from pipeline.stack import commands

        commands.down(current.settings, current.stdout)


def status() -> None:
    """Show processes, live models, runs, open approvals and disk space. Exit code 1: not all processes run."""
    with session() as current:
        from pipeline.stack.status import status as print_status

        raise typer.Exit(print_status(current.settings, current.stdout))
