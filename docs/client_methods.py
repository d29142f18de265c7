"""The Python client of docs/reference/python-client.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from docs.generated import REFERENCE, first_paragraph, table
from serving import client
from serving.client import Client

PAGE = REFERENCE / "python-client.md"


def sections() -> dict[str, str]:
    """Return the methods of the client, and the exported classes."""
    members = {name: found for owner in reversed(Client.__mro__) for name, found in vars(owner).items()}
    methods = [(name, found) for name, found in members.items() if callable(found) and not name.startswith("_")]
    rows = [(f"`{name}{_signature(found)}`", first_paragraph(found.__doc__)) for name, found in methods]
    classes = [(f"`{name}`", first_paragraph(getattr(client, name).__doc__)) for name in client.__all__]
    return {
        "construct": f"`Client{_signature(Client.__init__)}`\n\n{_text(Client.__init__)}",
        "methods": table(("Method", "Meaning"), rows),
        "classes": table(("Name", "Meaning"), classes),
    }


def _signature(function: Callable[..., Any]) -> str:
    found = inspect.signature(function)
    text = str(found.replace(parameters=list(found.parameters.values())[1:]))
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text).removesuffix(" -> None")


def _text(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split())
