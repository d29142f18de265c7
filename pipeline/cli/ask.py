"""Questions to a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from pipeline.cli.console import say


def is_interactive() -> bool:
    """Return whether a person can answer: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def choose(question: str, choices: Sequence[str], default: Sequence[str], most: int) -> tuple[str, ...]:
    """Ask until the answer names 1 to `most` of the choices by number or name, separated by commas.

    An empty answer takes the default, if there is one. Raises typer.Abort at the end of the input.
    """
    say(question)
    for number, choice in enumerate(choices, 1):
        say(f"  {number}  {choice}")
    while True:
        answer = typer.prompt("number or name", default=",".join(default) or None, err=True)
        if chosen := _parse(str(answer), choices, most):
            return chosen
        say(f"answer with {'1 choice' if most == 1 else f'1 to {most} choices, separated by commas'} of the list")


def _parse(answer: str, choices: Sequence[str], most: int) -> tuple[str, ...]:
    """Return the choices that an answer names; empty if it is invalid."""
    by_name = {str(number): choice for number, choice in enumerate(choices, 1)} | {choice: choice for choice in choices}
    parts = [part.strip() for part in answer.split(",")]
    valid = 1 <= len(parts) <= most and all(part in by_name for part in parts)
    return tuple(dict.fromkeys(by_name[part] for part in parts)) if valid else ()
