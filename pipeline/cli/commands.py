"""Commands that look after what is served and the machine it is served from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options as opt
from pipeline.cli.console import say, session
from pipeline.errors import FAILED

STACK = "The local stack"
SERVED, OWN, BETTER, PLACE = "What is served", "An encoder of your own", "A better recipe", "This machine"


def add_to(app: typer.Typer) -> None:
    """Register them."""
    for panel, functions in (
        (SERVED, (releases, rollback)),
        (OWN, (pretrain,)),
        (BETTER, (tune,)),
        (PLACE, (doctor, prune, sample, sync)),
        (STACK, (up, down, status)),
    ):
        for function in functions:
            app.command(rich_help_panel=panel)(function)


def releases(store: opt.StoreUri = None, as_json: opt.Json = False) -> None:
    """Deployments, the newest first, and which is live."""
    with session(as_json=as_json) as current:
        from pipeline.cli.output import deployments_document, print_deployments
        from pipeline.job import open_store

        document = deployments_document(open_store(current.settings, store))
        if as_json:
            current.document(document)
        else:
            print_deployments(current, document)


def rollback(
    deployment: Annotated[int | None, typer.Argument(help="Number of a deployment; empty: the one before.")] = None,
    store: opt.StoreUri = None,
    run_id: opt.RunId = None,
    as_json: opt.Json = False,
) -> None:
    """Serve the releases of an earlier deployment again."""
    with session(as_json=as_json) as current:
        from pipeline.deployment.deployer import rollback as roll_back
        from pipeline.job import new_run_id, open_store

        record = roll_back(current.settings, open_store(current.settings, store), run_id or new_run_id(), deployment)
        if as_json:
            current.document(record.model_dump(mode="json"))
            return
        current.line(f"deployment {record.number} is live: {record.reason}")
        for name, ref in sorted(record.releases.items()):
            current.line(f"  {name}: {ref}")


def pretrain(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Raw texts, one a line; .gz, too."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="What was cut off there goes on.")],
    encoder: Annotated[str, typer.Option(help="Which: mini, or a TOML file like its own.")] = "mini",
    start: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="An encoder made before, to go on from."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the encoder's own.")] = None,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 500,
    as_json: opt.Json = False,
) -> None:
    """Train a vocabulary and an encoder on raw texts; DIR/encoder is a base model for `--base-model`."""
    with session(as_json=as_json) as current:
        from pipeline.pretraining.spec import load_encoder

        # Before what takes seconds to import: a mistake is told at once.
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
    recipe: opt.RecipeName,
    trials: Annotated[int, typer.Option(min=1, help="How many in all, those that ended before included.")] = 20,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=LOW..HIGH|A,B",
            help="Fields to try instead of the usual ones: train.learning_rate=1e-4..1e-3, train.epochs=1,2,3.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Where the best goes, for `--overrides`. Empty: in HOME."),
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
    """Search for better hyperparameters on the validation side; cut off, the same again goes on.

    Without --search it tries learning rate, epochs, batch size, warm-up, weight decay and, of a base model, layer
    decay, around the recipe's own. The recipe as it is comes first.
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
        # Before what takes seconds to import: a mistake is told at once.
        search = open_search(job, chosen, fields or [])
        for key, field in search.space.items():
            say(f"searching {key}: {field} (the recipe: {search.own[key]})")
        from pipeline.cli.output import print_tuned
        from pipeline.tuning.search import tune as tune_recipe

        document = tune_recipe(search, trials, out.expanduser().resolve() if out else None, say)
        if as_json:
            current.document(document)
        else:
            print_tuned(current, document)


def doctor(store: opt.StoreUri = None, as_json: opt.Json = False) -> None:
    """Check this machine: versions, GPU, disk, ports, store, service, tracking; and say what to do."""
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Delete what no deployment that is kept and no night to come needs (SAEBYEOK_KEEP_DEPLOYMENTS, _KEEP_DAYS)."""
    with session(as_json=as_json) as current:
        from pipeline.deployment.retention import delete_outdated, find_outdated
        from pipeline.job import open_store

        place = open_store(current.settings, store)
        outdated = find_outdated(place, current.settings)
        if not dry_run:
            delete_outdated(place, current.settings, outdated)
        refs = [artifact.ref for artifact in outdated.artifacts]
        if as_json:
            current.document({"deleted": [] if dry_run else refs, "outdated": refs, "bytes": outdated.size})
            return
        for ref in refs:
            current.line(f"{'would delete' if dry_run else 'deleted'} {ref}")
        current.line(f"{len(refs)} artifacts, {outdated.size / 2**20:,.1f} MiB")


def sample(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it is absent.")],
    as_json: opt.Json = False,
) -> None:
    """Write the sample data that ships with Saebyeok, in the published files' format."""
    with session(as_json=as_json) as current:
        from pipeline.sample import write_sample

        written = write_sample(directory.expanduser().resolve())
        if as_json:
            current.document({"directory": str(written)})
        else:
            current.line(f"sample data in {written}; for instance: saebyeok run nsmc --data {written}")


def sync(store: opt.StoreUri = None, as_json: opt.Json = False) -> None:
    """Send Weights & Biases what was recorded offline: runs, data sets and releases, and who is champion.

    What is there already is not sent again. Exits with 1 where something failed; the next call goes on from there.
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


def up(
    data: opt.Data = None,
    run: Annotated[bool, typer.Option(help="Run the DAG once and wait for it, or only start what serves.")] = True,
) -> None:
    """Start Airflow and the service, retrain every recipe once, and say what came out.

    What runs already is used as it is. Exits with 1 where a task failed and with 3 where a gate refused.
    """
    with session(data=data) as current:
        from pipeline.stack import commands

        raise typer.Exit(commands.up(current.settings, current.stdout, run=run))


def down() -> None:
    """Stop what `up` started, and nothing else."""
    with session() as current:
        from pipeline.stack import commands

        commands.down(current.settings, current.stdout)


def status() -> None:
    """Say what of the local stack runs. Exits with 1 where not all of it does."""
    with session() as current:
        from pipeline.stack import commands

        raise typer.Exit(commands.status(current.settings, current.stdout))
