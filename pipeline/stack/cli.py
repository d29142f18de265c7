"""`saebyeok up`, `down` and `status`, as the command line knows them."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import options as opt
from pipeline.cli.console import session

STACK = "The local stack"


def add_to(app: typer.Typer) -> None:
    """Register them."""
    for function in (up, down, status):
        app.command(rich_help_panel=STACK)(function)


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
