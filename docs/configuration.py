"""The table of settings of docs/reference/settings.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docs.generated import REFERENCE, code, table
from pipeline.config_file import ROOT
from pipeline.settings import Settings

PAGE = REFERENCE / "settings.md"


def sections() -> dict[str, str]:
    """Return the settings as a table, in their order."""
    rows = [
        (f"`SAEBYEOK_{name.upper()}`", code(_default(field.default)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return {"settings": table(("Variable", "Default", "Meaning"), rows)}


def _default(value: Any) -> Any:
    if isinstance(value, Path):
        return value.relative_to(ROOT) if value.is_relative_to(ROOT) else value.name
    return value
