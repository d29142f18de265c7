"""What a command prints: its result on standard output and nothing else there, all the rest on standard error."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from pipeline.errors import (
    FAILED,
    INTERRUPTED,
    REFUSED,
    USAGE,
    GoldenMismatchError,
    LatencyError,
    ParityError,
    RecipeError,
    RefusedError,
    SaebyeokError,
    SettingsError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.settings import Settings

ASKED_WRONGLY = (RecipeError, SettingsError)
GATES = (GoldenMismatchError, LatencyError, ParityError, RefusedError)


@dataclass(frozen=True)
class Session:
    """One command: its settings, and where its result goes."""

    settings: Settings
    stdout: TextIO
    as_json: bool

    def document(self, document: Mapping[str, Any]) -> None:
        """Print the one JSON document of `--json`."""
        print_json(document, self.stdout)

    def write(self, document: Mapping[str, Any]) -> None:
        """Print one document of many, a line each."""
        self.line(json.dumps(document, ensure_ascii=False))

    def line(self, text: str = "") -> None:
        """Print one line of the result, never wrapped."""
        self.stdout.write(f"{text}\n")
        self.stdout.flush()

    def tables(self) -> Console:
        """A rich console on standard output."""
        from rich.console import Console

        return Console(file=self.stdout, markup=False, highlight=False)


@contextmanager
def session(*, as_json: bool = False, data: Path | None = None, share: bool = False) -> Iterator[Session]:
    """Settings and output of one command; its errors become one line and an exit code.

    An unforeseen error keeps its traceback. `share` leaves standard output to whoever prints there.
    """
    stdout = sys.stdout if share else claim_stdout()
    try:
        yield _open(stdout, as_json, data)
    except SaebyeokError as error:
        _say_error(stdout, as_json, type(error).__name__, str(error), retryable=error.retryable)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        _say_error(stdout, as_json, "Interrupted", "interrupted; what was finished is kept, run it again to go on")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # The reader has what it wanted (`saebyeok predict ... | head`); nothing more can be written there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise typer.Exit(0) from error
    except typer.Exit:
        raise
    except typer.TyperException as error:
        raise typer.Exit(usage_error(error, stdout, as_json)) from error
    except Exception as error:
        if as_json:
            print_error(stdout, type(error).__name__, str(error))
        raise


def exit_code(error: SaebyeokError) -> int:
    """Of the process that ends with `error`."""
    if isinstance(error, ASKED_WRONGLY):
        return USAGE
    return REFUSED if isinstance(error, GATES) else FAILED


def _open(stdout: TextIO, as_json: bool, data: Path | None) -> Session:
    from pipeline.job import keep_libraries_home
    from pipeline.settings import load_settings

    settings = load_settings()
    if data is not None:
        settings = settings.model_copy(update={"data": data.expanduser().resolve(), "source": "directory"})
    keep_libraries_home(settings)
    return Session(settings, stdout, as_json)


def claim_stdout() -> TextIO:
    """The real standard output; from now on, whoever else writes there writes to standard error.

    Also C code and child processes, which know file descriptor 1 only. For the rest of the process:
    libraries print while they shut down, too.
    """
    stream = sys.stdout
    try:
        if stream.fileno() != 1:
            return stream
    except io.UnsupportedOperation:
        return stream
    stream.flush()
    claimed = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return claimed


def finite(value: Any) -> Any:
    """`value` with None for every number that JSON has no word for: NaN, as Pearson's r of a constant, and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def print_json(document: Mapping[str, Any], stdout: TextIO) -> None:
    """Print one JSON document, indented where a person reads it."""
    indent = 2 if stdout.isatty() else None
    stdout.write(json.dumps(finite(document), ensure_ascii=False, indent=indent, allow_nan=False, default=str) + "\n")
    stdout.flush()


def usage_error(error: typer.TyperException, stdout: TextIO, as_json: bool) -> int:
    """Say what was asked wrongly, as one line and with `as_json` as a document; the exit code."""
    context = getattr(error, "ctx", None)
    hint = f" (see `{context.command_path} --help`)" if context else ""
    say(f"error: {error.format_message()}{hint}")
    if as_json:
        print_error(stdout, "UsageError", error.format_message())
    return error.exit_code


def print_error(stdout: TextIO, kind: str, message: str, *, retryable: bool = False) -> None:
    """Print the JSON document of an error."""
    print_json({"error": {"type": kind, "message": message, "retryable": retryable}}, stdout)


def _say_error(stdout: TextIO, as_json: bool, kind: str, message: str, *, retryable: bool = False) -> None:
    say(f"error: {message}")
    if as_json:
        print_error(stdout, kind, message, retryable=retryable)


def say(text: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def log_to_stderr(*, verbose: bool) -> None:
    """Warnings of all libraries, and with `verbose` what Saebyeok itself does."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for package in ("pipeline", "serving"):
        logging.getLogger(package).setLevel(logging.INFO if verbose else logging.WARNING)
