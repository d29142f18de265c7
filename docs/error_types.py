"""The errors of docs/reference/errors.md."""

from __future__ import annotations

import json
from collections.abc import Iterator

from docs.generated import REFERENCE, first_paragraph, table
from pipeline import errors
from pipeline.cli.console import ASKED_WRONGLY, GATES
from pipeline.config_file import ROOT
from pipeline.errors import FAILED, INTERRUPTED, REFUSED, USAGE, SaebyeokError
from serving.schemas import ErrorType

DOCUMENT = json.loads((ROOT / "serving" / "openapi.json").read_text(encoding="utf-8"))
PAGE = REFERENCE / "errors.md"
MEANINGS = {
    0: "success",
    FAILED: "an expected failure; the message says what to do",
    USAGE: "a usage error: a wrong option, setting or recipe",
    REFUSED: "a gate refused the model or the request",
    INTERRUPTED: "interrupted by Ctrl-C; finished stages are kept",
}


def sections() -> dict[str, str]:
    """Return exit codes, error classes, and the error types of the service."""
    return {
        "exit-codes": table(("Exit code", "Meaning"), [(str(code), text) for code, text in MEANINGS.items()]),
        "classes": table(("Error", "Meaning", "Exit code", "Retried by Airflow"), map(_row, error_classes())),
        "types": table(("Status", "Type", "Meaning"), _types()),
    }


def error_classes() -> Iterator[type[SaebyeokError]]:
    """Yield the error classes of `pipeline.errors`, in the order of the file."""
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, SaebyeokError) and found is not SaebyeokError:
            yield found


def _row(error: type[SaebyeokError]) -> tuple[str, str, str, str]:
    code = USAGE if issubclass(error, ASKED_WRONGLY) else REFUSED if issubclass(error, GATES) else FAILED
    return f"`{error.__name__}`", first_paragraph(error.__doc__), str(code), "yes" if error.retryable else "no"


def _types() -> Iterator[tuple[str, str, str]]:
    """Yield status, type and meaning; the routes with the error describe it in the OpenAPI document."""
    found = {
        status: response["description"]
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
    }
    for kind in ErrorType:
        _, _, meaning = found.get(str(kind.status), ": the route has no such method").partition(": ")
        yield str(kind.status), f"`{kind.value}`", meaning
