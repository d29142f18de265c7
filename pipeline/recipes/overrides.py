"""Files of recipe overrides: tables as in a recipe, read into dotted keys and written from them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.recipes.strict_model import read_toml


def read_overrides(path: Path) -> dict[str, Any]:
    """Dotted keys to values. Raises RecipeError where `path` is not TOML."""
    return dict(_leaves(read_toml(path, str(path))))


def format_overrides(overrides: Mapping[str, Any]) -> str:
    """The TOML document of dotted keys (`train.epochs`: 2; tables too), which `read_overrides` reads."""
    tables: dict[str, list[str]] = {}
    for key, value in dict(_leaves(overrides)).items():
        table, _, name = key.rpartition(".")
        # Numbers, booleans, texts and lists of them are the same in JSON and TOML.
        tables.setdefault(table, []).append(f"{name} = {json.dumps(value, ensure_ascii=False)}\n")
    # What is in no table stands before all tables.
    return "\n".join((f"[{table}]\n" if table else "") + "".join(tables[table]) for table in sorted(tables))


def parse_value(text: str) -> Any:
    """A value as a person types it: TOML (`7`, `0.1`, `true`, `[1, 2]`), and text where it is no TOML."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if set(document) == {"value"} else text


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
