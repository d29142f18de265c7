"""Write the sections of the reference pages that come from code: `make reference`.

A section is between `<!-- NAME: written by MODULE -->` and `<!-- end of NAME -->`. Each module in `GENERATORS` has the
path of its page, `PAGE`, and `sections()`, which returns the sections by name.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config_file import ROOT
from pipeline.job import keep_libraries_home
from pipeline.settings import load_settings

REFERENCE = ROOT / "docs" / "reference"
GENERATORS = (
    "configuration",
    "command_line",
    "recipe_fields",
    "encoder_fields",
    "http_routes",
    "client_methods",
    "error_types",
    "artifact_kinds",
    "metric_names",
    "dag_parameters",
)
SECTION = re.compile(r"(<!-- ([\w-]+): written by [\w.]+ -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def filled(page: Path, sections: Mapping[str, str]) -> str:
    """Return the text of `page` with its sections by name. Raises ValueError if the page has other sections."""
    text = page.read_text(encoding="utf-8")
    names = [match[2] for match in SECTION.finditer(text)]
    if sorted(names) != sorted(sections):
        raise ValueError(f"{page.name} has the sections {sorted(names)}, but the generator writes {sorted(sections)}")
    return SECTION.sub(lambda match: f"{match[1]}\n{sections[match[2]].strip()}\n\n{match[3]}", text)


def generator(name: str) -> Any:
    """Return the module of `GENERATORS` with this name."""
    return importlib.import_module(f"docs.{name}")


def main() -> None:
    """Write all sections."""
    keep_libraries_home(load_settings())
    for found in map(generator, GENERATORS):
        found.PAGE.write_text(filled(found.PAGE, found.sections()), encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; line feeds and bars in its cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    # Outside code, `<key>` would be an HTML element.
    return "`".join(part if inside % 2 else part.replace("<", "&lt;") for inside, part in enumerate(parts))


def first_paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def code(text: object) -> str:
    """Return `text` as code, or an empty string if there is none."""
    return f"`{text}`" if text not in (None, "") else ""


if __name__ == "__main__":
    main()
