"""Write the README's table of settings: `.venv/bin/python docs/configuration.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pipeline.config_file import ROOT
from pipeline.settings import Settings

README = ROOT / "README.md"
START, END = "<!-- settings: written by docs/configuration.py -->\n", "<!-- end of settings -->"


def table() -> str:
    """Return the settings as a Markdown table, in their order."""
    rows = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `SAEBYEOK_{name.upper()}` | {_default(field.default)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, Path):
        value = value.relative_to(ROOT) if value.is_relative_to(ROOT) else value.name
    return f"`{value}`" if value not in (None, "") else ""


def written(text: str) -> str:
    """Return `text` with the table between its markers. Raises ValueError if a marker is missing."""
    pattern = re.compile(f"(?<={re.escape(START)}).*?(?={re.escape(END)})", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no {START.strip()!r} followed by {END!r}")
    return pattern.sub(lambda _: table(), text)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
