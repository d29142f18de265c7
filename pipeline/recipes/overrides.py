"""Files of recipe overrides: read tables as in a recipe into dotted keys, and write them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.nested import flatten
from pipeline.recipes.files import read_toml


def read_overrides(path: Path) -> dict[str, Any]:
    """Return the overrides in the file `path` by dotted key. Raises RecipeError if it is not TOML."""
    return flatten(read_toml(path, str(path)))


def format_overrides(overrides: Mapping[str, Any]) -> str:
    """Return the TOML document for overrides by dotted key (`train.epochs`: 2; nested tables too)."""
    tables: dict[str, list[str]] = {}
    for key, value in flatten(overrides).items():
        table, _, name = key.rpartition(".")
        # Numbers, booleans, texts and lists of them look the same in JSON and TOML.
        tables.setdefault(table, []).append(f"{name} = {json.dumps(value, ensure_ascii=False)}\n")
    # Sorting puts top-level keys (table "") first, as TOML requires.
    return "\n".join((f"[{table}]\n" if table else "") + "".join(tables[table]) for table in sorted(tables))


def parse_value(text: str) -> Any:
    """Return a typed value: parsed as TOML (`7`, `0.1`, `true`, `[1, 2]`), or the text itself if it is not TOML."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, a number with too many digits, or lists nested too deeply
        return text
    return document["value"] if set(document) == {"value"} else text
