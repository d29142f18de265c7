"""Commands for this machine and the local stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options as opt
from pipeline.cli.console import session
from pipeline.errors import FAILED

PLACE, STACK = "This machine", "The local stack"


def add_to(app: typer.Typer) -> None:
    """Register the commands with `app`."""
    for panel, functions in ((PLACE, (doctor, prune, sample, sync, test_alert)), (STACK, (up, down, status))):
        for function in functions:
            app.command(rich_help_panel=panel)(function)


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
        bool, typer.Option("--dry-run", help="List the artifacts to delete and to keep, without deleting.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Delete artifacts that no retained deployment or future run needs.

    SAEBYEOK_KEEP_DEPLOYMENTS and SAEBYEOK_KEEP_DAYS say what is retained.
    """
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
