"""The environment of the Jinja templates: pages of HTML, and model cards in Markdown."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def templates_in(directory: Path) -> Environment:
    """Return an environment for the templates in `directory`.

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
