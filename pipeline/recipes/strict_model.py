"""Base class of models that are read from files, and error messages for invalid values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

#: Characters of an invalid value that a message shows.
LONGEST_VALUE = 200


class Strict(BaseModel):
    """A frozen model that rejects unknown keys, values of another type, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    later: ClassVar[frozenset[str]] = frozenset()
    "Fields that recipes of earlier versions did not have. A dump leaves them out at their default, so that keys stay."
    remarks: ClassVar[frozenset[str]] = frozenset()
    "Fields for readers only. A dump always leaves them out, so that a change keeps the keys of artifacts."

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {name for name in self.later if getattr(self, name) == fields[name].default}
        return {name: value for name, value in handler(self).items() if name not in unset | self.remarks}


def explain(
    error: ValidationError,
    model: type[BaseModel],
    file: str,
    own: Mapping[str, str] | None = None,
    line_at: Callable[[tuple[str, ...]], int | None] = lambda _: None,
) -> str:
    """Return the message about `file` for a validation error of `model`, with lines, keys and allowed values.

    `own` maps a table that has its own file to the name of that file. `line_at` returns the line of a key, or None.
    """
    lines = []
    for item in error.errors():
        location = item["loc"]
        table = str(location[0]) if location else ""
        inside = table in (own or {})
        line = line_at(tuple(map(str, location)) or _named_in(item["msg"]))
        where = (own or {}).get(table, file) + (f" line {line}" if line else "")
        key = ".".join(str(part) for part in location[inside:])
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key `{key}`; allowed there: {', '.join(_fields_at(model, location))}")
        elif item["type"] == "missing":
            lines.append(f"{where}: `{key}` is missing")
        else:
            named = f"`{key}` " if key else ""
            # The message of a rule for a whole table names its keys.
            given = f" (it is {_short(item['input'])})" if item["type"] != "value_error" else ""
            lines.append(f"{where}: {named}{item['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(lines)


def _named_in(message: str) -> tuple[str, ...]:
    """Return the first key that the message of a rule for the whole document names; empty if it names none."""
    named = re.search(r"`([\w.-]+)`", message)
    return tuple(named[1].split(".")) if named else ()


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python converts no number with more than 4,300 digits
        return "a number with too many digits"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _fields_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    # A number in the location is an index into a list of tables.
    for part in (item for item in location[:-1] if isinstance(item, str)):
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
    return sorted(model.model_fields)
