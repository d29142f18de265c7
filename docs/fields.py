"""Tables of the fields of pydantic models, with their allowed values and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.generated import code, table

HEADER = ("Key", "Type and bounds", "Default", "Meaning")
#: Attributes of annotated-types and pydantic with the sign of their bound.
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
TYPES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    date: "date",
    datetime: "time",
    Any: "anything",
}


def field_table(model: type[BaseModel]) -> str:
    """Return the fields of one model as a Markdown table."""
    rows = [
        (f"`{name}`", _allowed(field), _default(field), field.description or _of_its_model(field))
        for name, field in model.model_fields.items()
        if not field.exclude
    ]
    return table(HEADER, rows)


def model_sections(model: type[BaseModel]) -> str:
    """Return a heading and a table per TOML table of `model`; tables with the same fields share one."""
    names: dict[type[BaseModel], list[str]] = {}
    for name, found in nested(model):
        names.setdefault(found, []).append(f"`[{name}]`")
    return "\n".join(
        f"## {', '.join(tables)}\n\n{_text(found)}\n\n{field_table(found)}" for found, tables in names.items()
    )


def nested(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the models in the fields of `model`, and in theirs, with the names of their TOML tables."""
    for name, field in model.model_fields.items():
        for found in _models(field.annotation):
            yield f"{prefix}{name}", found
            yield from nested(found, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _of_its_model(field: FieldInfo) -> str:
    return next((_text(model) for model in _models(field.annotation)), "")


def _text(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _allowed(field: FieldInfo) -> str:
    parts = [_type(field.annotation), *_bounds(field.metadata)]
    for part in get_args(field.annotation):
        parts += _bounds(getattr(part, "__metadata__", ()))
    return ", ".join(dict.fromkeys(filter(None, parts)))


def _type(annotation: Any) -> str:
    if annotation in TYPES:
        return TYPES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list"
    if get_origin(annotation) is dict:
        inside = _type(get_args(annotation)[1])
        return "table" if inside == "anything" else f"table of {inside}"
    if hasattr(annotation, "__metadata__"):
        return ", ".join([_type(get_args(annotation)[0]), *_bounds(annotation.__metadata__)])
    return " or ".join(_type(part) for part in get_args(annotation) if part is not type(None))


def _bounds(metadata: Any) -> list[str]:
    """Return the bounds in the metadata of a field; `Annotated[T, Field(...)]` nests them in another FieldInfo."""
    found: list[str] = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            found += _bounds(item.metadata)
        found += [f"{sign} {getattr(item, name):,}" for name, sign in BOUNDS.items() if hasattr(item, name)]
    return found


def _default(field: FieldInfo) -> str:
    if re.search("Default:|^set by", field.description or ""):
        return ""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "see below"
    if value in ({}, ()):
        return "empty"
    return code({True: "true", False: "false"}[value] if isinstance(value, bool) else value)
