"""The environment of the Jinja templates: pages of HTML, and model cards in Markdown."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


@cache
def templates_in(directory: Path) -> Environment:
    """Return the environment for the templates in `directory`; it compiles each of them once per process.

    It escapes values in `.html` files only, and raises UndefinedError on a name that a page is not given.
    """
    return Environment(
        loader=FileSystemLoader(directory),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
