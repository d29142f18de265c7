"""Base class of models that are read from files, and error messages for invalid files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import RecipeError


class Strict(BaseModel):
    """A frozen model that rejects unknown keys, values of another type, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """Return the TOML document in the file `path`. Raises RecipeError, with `name` as its name, if it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name} is not TOML: {error}") from error


def explain(error: ValidationError, model: type[BaseModel], file: str, own: Mapping[str, str] | None = None) -> str:
    """Return the message about `file` for a validation error of `model`, with keys and allowed values.

    `own` maps a table that has its own file to the name of that file.
    """
    lines = []
    for item in error.errors():
        location = item["loc"]
        table = str(location[0]) if location else ""
        inside = table in (own or {})
        where = (own or {}).get(table, file)
        key = ".".join(str(part) for part in location[inside:])
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key `{key}`; allowed there: {', '.join(_fields_at(model, location))}")
        elif item["type"] == "missing":
            lines.append(f"{where}: `{key}` is missing")
        else:
            named = f"`{key}` " if key else ""
            # The message of a rule for a whole table names its keys.
            given = f" (it is {item['input']!r})" if item["type"] != "value_error" else ""
            lines.append(f"{where}: {named}{item['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(lines)


def _fields_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    # A number in the location is an index into a list of tables.
    for part in (item for item in location[:-1] if isinstance(item, str)):
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
    return sorted(model.model_fields)
