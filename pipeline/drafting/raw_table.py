"""Read a data file before there is a recipe: guess format, encoding and delimiter, and return every column."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.formats import BYTE_ORDER_MARKS, parquet_rows, read_parquet, whole_number
from pipeline.data.reading import read_content
from pipeline.errors import DataError
from pipeline.nested import flatten
from pipeline.recipes.data_schema import SUFFIXES

#: Delimiters of a CSV, the most likely one first.
DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class RawTable:
    """The rows of a file, by column; nested JSON keys are joined with dots. `settings` are keys of `[data]`."""

    rows: list[dict[str, Any]]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order of their first occurrence."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def values(self, column: str) -> list[str]:
        """Return the values of a column as text, without missing ones."""
        found = (row.get(column) for row in self.rows)
        return [str(value) for value in found if value is not None and not isinstance(value, list | dict)]


def read_table(file: Path) -> RawTable:
    """Return the rows of a file. Raises DataError if it cannot be read or has no rows."""
    content = read_content(file)
    form = SUFFIXES.get(file.suffix.lower())
    if form is None:
        known = ", ".join(SUFFIXES)
        raise DataError(
            f"{file}: the suffix {file.suffix or '(none)'} names no format; rename the file to one of {known}"
        )
    if form == "parquet":
        rows, settings = _parquet(file, content), {}
    else:
        encoding = _encoding(file, content)
        settings = {"encoding": encoding} if encoding != "utf-8" else {}
        text = content.decode(encoding)
        rows = _READERS[form](file, text, settings)
    if not rows:
        raise DataError(f"{file} has no rows; rule: at least one")
    return RawTable(rows, {"format": form} | settings)


def _encoding(file: Path, content: bytes) -> str:
    marked = [encoding for mark, (_, encoding) in BYTE_ORDER_MARKS.items() if content.startswith(mark)]
    for encoding in marked or ("utf-8", "cp949"):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    raise DataError(f"{file} is neither UTF-8 nor UTF-16 nor CP949; convert it to UTF-8")


def _parquet(file: Path, content: bytes) -> list[dict[str, Any]]:
    return [flatten(row) for row in parquet_rows(file, read_parquet(file, content))]


def _csv(file: Path, text: str, settings: dict[str, str]) -> list[dict[str, Any]]:
    found = [(delimiter, cells) for delimiter in DELIMITERS if (cells := _cells(text, delimiter)) is not None]
    # The delimiter of most rows: a comma inside texts gives rows of different lengths.
    whole = {
        delimiter: sum(len(row) == len(cells[0]) for row in cells) for delimiter, cells in found if len(cells[0]) > 1
    }
    if not whole:
        raise DataError(
            f"{file} is not a CSV with several columns; rule: a header, and quotes around texts with commas"
        )
    delimiter = max(whole, key=lambda item: whole[item])
    if delimiter != ",":
        settings["delimiter"] = delimiter
    header, *rows = dict(found)[delimiter]
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def _cells(text: str, delimiter: str) -> list[list[str]] | None:
    """Return the cells of a CSV with this delimiter; None if its quotes do not fit."""
    try:
        return list(csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), delimiter=delimiter, strict=True)) or None
    except csv.Error:
        return None


def _tsv(file: Path, text: str, settings: dict[str, str]) -> list[dict[str, Any]]:
    header, *rows = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def _json(file: Path, text: str, settings: dict[str, str]) -> list[dict[str, Any]]:
    try:
        items = json.loads(text, parse_int=whole_number)
        return [flatten(item) for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}; rule: one list of objects") from error


def _jsonl(file: Path, text: str, settings: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    # Not `splitlines`, which also breaks lines at characters that JSON allows in a text.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            item = json.loads(line, parse_int=whole_number)
            rows += [flatten(item)] if isinstance(item, Mapping) else []
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: line {number} is not JSON: {error}; rule: one object per line") from error
    return rows


_READERS = {"csv": _csv, "tsv": _tsv, "json": _json, "jsonl": _jsonl}
