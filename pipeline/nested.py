"""Nested tables as flat ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(table: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return the values of a nested table by path, such as `train.epochs`; a list is one value."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}{separator}{path}": item for path, item in flatten(value, separator).items()}
        else:
            flat[key] = value
    return flat
