"""Output of a command: only its result goes to standard output, everything else to standard error."""

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
    """One running command: its settings and the stream for its result."""

    settings: Settings
    stdout: TextIO
    as_json: bool

    def document(self, document: Mapping[str, Any]) -> None:
        """Print the single JSON document of `--json`."""
        print_json(document, self.stdout)

    def write(self, document: Mapping[str, Any]) -> None:
        """Print one of many JSON documents, on one line."""
        self.line(json.dumps(document, ensure_ascii=False))

    def line(self, text: str = "") -> None:
        """Print one line of the result, unwrapped."""
        self.stdout.write(f"{text}\n")
        self.stdout.flush()

    def tables(self) -> Console:
        """Return a rich console on standard output."""
        from rich.console import Console

        return Console(file=self.stdout, markup=False, highlight=False)


@contextmanager
def session(*, as_json: bool = False, data: Path | None = None, share: bool = False) -> Iterator[Session]:
    """Yield the settings and the output of one command, and turn its errors into one line and an exit code.

    An unexpected error keeps its traceback. With `share`, other code may print to standard output too.
    """
    stdout = sys.stdout if share else claim_stdout()
    try:
        yield _open(stdout, as_json, data)
    except SaebyeokError as error:
        _say_error(stdout, as_json, type(error).__name__, str(error), retryable=error.retryable)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        _say_error(
            stdout, as_json, "Interrupted", "interrupted; finished stages are kept, rerun the command to continue"
        )
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # The reader closed the pipe (`saebyeok predict ... | head`), which is not an error.
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
    """Return the exit code for `error`."""
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
    """Return the real standard output, and redirect everything else that writes to it to standard error.

    The redirection includes C code and child processes, which use file descriptor 1. It lasts until the process ends,
    because libraries also print while they shut down.
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
    """Return `value` with None for each NaN (such as Pearson's r of a constant) and infinity, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def print_json(document: Mapping[str, Any], stdout: TextIO) -> None:
    """Print one JSON document, indented if `stdout` is a terminal."""
    indent = 2 if stdout.isatty() else None
    stdout.write(json.dumps(finite(document), ensure_ascii=False, indent=indent, allow_nan=False, default=str) + "\n")
    stdout.flush()


def usage_error(error: typer.TyperException, stdout: TextIO, as_json: bool) -> int:
    """Print a usage error as one line, and with `as_json` as a document, and return the exit code."""
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
    """Log the warnings of all libraries to standard error, and with `verbose` Saebyeok's own INFO messages.

    The progress of long operations is logged, too, unless standard error is a terminal.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for package in ("pipeline", "serving"):
        logging.getLogger(package).setLevel(logging.INFO if verbose else logging.WARNING)
    # A terminal has a progress bar; without it, hours could pass without a line.
    for long in ("pipeline.progress", "pipeline.training"):
        logging.getLogger(long).setLevel(logging.NOTSET if sys.stderr.isatty() else logging.INFO)
