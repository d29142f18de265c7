"""File formats: parse the content of a data file into readable and unreadable rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import pandas as pd

from pipeline.errors import DataError
from pipeline.recipes.data_schema import DataSpec
from pipeline.recipes.kinds.inputs import TEXTS
from pipeline.texts import composed, some_of, visible

if TYPE_CHECKING:
    import pyarrow

# With Python's own limit of 131,072 characters per cell, one long text makes the whole file unreadable. A rule of the
# suite refuses its row.
csv.field_size_limit(2**31 - 1)

BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": ("UTF-8", "utf-8-sig"),
    b"\xff\xfe": ("UTF-16", "utf-16"),
    b"\xfe\xff": ("UTF-16", "utf-16"),
}


@dataclass(frozen=True)
class Broken:
    """An unreadable row: its line or item number, the rule that it breaks, its text, and a detail of the fault."""

    row: int
    rule: str
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Reading:
    """The content of a file: its readable rows, and the unreadable ones."""

    rows: pd.DataFrame
    broken: tuple[Broken, ...]


def parse_content(data: DataSpec, file: Path, content: bytes) -> Reading:
    """Return the rows of a file: `row` (its number from 1), and str or null in the columns of `columns_of`.

    `file` is for messages only. Raises DataError if the encoding or the structure is invalid.
    """
    if not content.strip():
        raise DataError(f"{file} is empty; copy the published file again")
    return FORMATS[data.format].parse(data, file, content)


def columns_of(data: DataSpec) -> dict[str, str]:
    """Map Saebyeok's column names to those of the file, in NFC; without `data.id`, no column of the file is the id."""
    ids = {"id": data.id} if data.id else {}
    names = ids | {**dict(zip(TEXTS, data.texts, strict=False)), "label": data.label}
    names |= {"source": data.source} if data.source else {}
    return {name: composed(column) for name, column in names.items()}


def row_unit(data: DataSpec) -> str:
    """Return the word for a row in messages."""
    return FORMATS[data.format].unit


def _decoded(data: DataSpec, file: Path, content: bytes) -> str:
    encoding = data.encoding
    if encoding == "utf-8":
        for mark, (name, known) in BYTE_ORDER_MARKS.items():
            if content.startswith(mark):
                raise DataError(
                    f"{file}: line 1 begins with a byte order mark ({name}); rule: UTF-8 without a byte order mark; "
                    f'save the file again without it, or set data.encoding = "{known}"'
                )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: {_undecodable(content, encoding)}") from error


def _undecodable(content: bytes, encoding: str) -> str:
    if encoding == "utf-16":
        return "the file is not UTF-16; correct data.encoding"
    lines = [f"line {number}" for number, line in enumerate(content.split(b"\n"), 1) if not _decodes(line, encoding)]
    count = f"{len(lines):,} {'line is' if len(lines) == 1 else 'lines are'} not {encoding.upper()}: {some_of(lines)}"
    if encoding != "utf-8":
        return f"{count}; correct data.encoding"
    as_cp949 = 'it can be read as CP949: convert it with iconv -f CP949 -t UTF-8, or set data.encoding = "cp949"'
    return f"{count}; {as_cp949 if _decodes(content, 'cp949') else 'convert the file to UTF-8'}"


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _tsv(data: DataSpec, file: Path, content: bytes) -> Reading:
    """Parse tab-separated lines with a header; no quoting, and only a line feed ends a line."""
    lines = _decoded(data, file, content).removesuffix("\n").split("\n")
    if lines[0].endswith("\r"):  # CRLF line ends: the carriage return is not part of the text
        lines = [line.removesuffix("\r") for line in lines]
    header, *rows = [line.split("\t") for line in lines]
    rule = f"{len(header) - 1} tabs per line, for the columns {', '.join(header)}"
    broken = [
        Broken(number, rule, "\t".join(row), f" ({len(row) - 1})")
        for number, row in enumerate(rows, 2)
        if len(row) != len(header)
    ]
    whole = [(number, row) for number, row in enumerate(rows, 2) if len(row) == len(header)]
    return _table(data, file, header, whole, broken)


def _csv(data: DataSpec, file: Path, content: bytes) -> Reading:
    """Parse a CSV (RFC 4180) with a header: cells with delimiters, quotes or line ends are quoted."""
    text = _decoded(data, file, content).rstrip("\r\n")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=data.delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        end = 0
        for row in lines:
            rows.append((end + 1, row))
            end = lines.line_num
    except csv.Error as error:
        raise DataError(
            f"{file}: the row that begins on line {end + 1} is not CSV: {error}; rule: a cell is in quotes as a whole, "
            "and a quote in it is doubled"
        ) from error
    (_, header), *cells = rows
    rule = f"{len(header)} cells per row, for the columns {', '.join(header)}"
    broken = [
        Broken(number, rule, data.delimiter.join(row), f" ({len(row)})")
        for number, row in cells
        if len(row) != len(header)
    ]
    return _table(data, file, header, [item for item in cells if len(item[1]) == len(header)], broken)


def _table(
    data: DataSpec, file: Path, header: list[str], rows: Sequence[tuple[int, list[str]]], broken: Iterable[Broken]
) -> Reading:
    wanted, header = columns_of(data), list(map(composed, header))
    _check_columns(f"{file}: line 1, the header,", header, wanted.values())
    table: dict[str, Iterable[Any]] = {"row": pd.Series([number for number, _ in rows], dtype="int64")}
    for name, column in wanted.items():
        place = header.index(column)
        table[name] = pd.Series([_composed(name, row[place]) for _, row in rows], dtype="str")
    return Reading(pd.DataFrame(table), tuple(broken))


def _check_columns(place: str, found: Sequence[str], wanted: Collection[str]) -> None:
    """Raise DataError unless each of the columns `wanted` is `found` exactly once."""
    for column in wanted:
        if found.count(column) != 1:
            problem = "has no" if column not in found else "has more than one"
            raise DataError(
                f"{place} {problem} column `{column}`; rule: {', '.join(wanted)}; "
                f"found: {', '.join(map(visible, found))[:200]}"
            )


def _json(data: DataSpec, file: Path, content: bytes) -> Reading:
    """Parse a JSON list of objects."""
    text = _decoded(data, file, content)
    try:
        items = json.loads(text, parse_int=whole_number)
    except RecursionError as error:
        raise DataError(f"{file}: values are nested too deeply; rule: one list of objects, one per row") from error
    except json.JSONDecodeError as error:
        ended = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        cut = "the file ends too early: " if ended else ""
        lines = '; for one object per line, set data.format = "jsonl"' if error.msg == "Extra data" else ""
        raise DataError(
            f"{file}: line {error.lineno} is not JSON: {cut}{error.msg}; rule: one list of objects{lines}"
        ) from error
    if not isinstance(items, list):
        raise DataError(f"{file}: the file contains a {type(items).__name__}; rule: one list of objects, one per row")
    return _objects(data, enumerate(items, 1), "item")


def _jsonl(data: DataSpec, file: Path, content: bytes) -> Reading:
    """Parse one JSON object per line."""
    lines = _decoded(data, file, content).removesuffix("\n").split("\n")
    return _objects(data, ((number, _parsed(line)) for number, line in enumerate(lines, 1)), "line")


def _parsed(line: str) -> Any:
    """Return the JSON value on a line; the text itself, which is no object, if it is not JSON."""
    try:
        return json.loads(line, parse_int=whole_number)
    except (json.JSONDecodeError, RecursionError):
        return line


def _parquet(data: DataSpec, file: Path, content: bytes) -> Reading:
    """Parse an Apache Parquet file; a dot in a column's name separates the fields of structs."""
    table = read_parquet(file, content)
    table = table.rename_columns(list(map(composed, table.column_names)))
    heads = sorted({column.partition(".")[0] for column in columns_of(data).values()})
    _check_columns(str(file), table.column_names, heads)
    return _objects(data, enumerate(parquet_rows(file, table.select(heads)), 1), "row")


def read_parquet(file: Path, content: bytes) -> pyarrow.Table:
    """Return the table in a Parquet file. Raises DataError if it is none."""
    # Imported here so that other formats do not wait for it.
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(io.BytesIO(content)).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file: {error}") from error


def parquet_rows(file: Path, table: pyarrow.Table) -> list[dict[str, Any]]:
    """Return the rows of a Parquet table. Raises DataError if a text in it is not UTF-8."""
    try:
        return list(table.to_pylist())
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: a text is not UTF-8 ({error.reason}); write the file again with texts in UTF-8"
        ) from error


def _objects(data: DataSpec, items: Iterable[tuple[int, Any]], unit: str) -> Reading:
    """Return the rows of numbered JSON values."""
    names = columns_of(data)
    checked = [(number, item, _broken_rule(item, names, unit)) for number, item in items]
    broken = tuple(
        Broken(number, rule, item if isinstance(item, str) else json.dumps(item, default=str))
        for number, item, rule in checked
        if rule is not None
    )
    whole = [(number, item) for number, item, rule in checked if rule is None]
    table: dict[str, Iterable[Any]] = {"row": pd.Series([number for number, _ in whole], dtype="int64")}
    for name, key in names.items():
        values = (_at(item, key) for _, item in whole)
        cells = [None if _is_null(value) else _composed(name, str(value)) for value in values]
        table[name] = pd.Series(cells, dtype="str")
    return Reading(pd.DataFrame(table), broken)


def _composed(column: str, value: str) -> str:
    return composed(value) if column in (*TEXTS, "label") else value


def _broken_rule(item: Any, names: dict[str, str], unit: str) -> str | None:
    """Return the first reading rule that a JSON value breaks; None if it is readable."""
    if not isinstance(item, dict):
        return f"every {unit} is an object"
    for name, key in names.items():
        value = _at(item, key)
        if value is _ABSENT:
            return f"every {unit} has `{key}`"
        allowed = (str,) if name in TEXTS else (str, int, float)
        if not (value is None or _is_plain(value, allowed)):
            return f"every `{key}` is {'text' if name in TEXTS else 'text or a number'}"
    return None


_ABSENT = object()


def _at(item: Any, key: str) -> Any:
    """Return the value at a dotted key, or `_ABSENT`."""
    for part in key.split("."):
        if not isinstance(item, dict):
            return _ABSENT
        # Keys that macOS wrote may be decomposed.
        item = item[part] if part in item else item.get(normalize("NFD", part), _ABSENT)
    return item


def whole_number(digits: str) -> int | float:
    """Return a whole number; infinity if it has more digits than Python converts (4,300), as JSON reads 1e999."""
    try:
        return int(digits)
    except ValueError:
        return math.inf


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_plain(value: Any, allowed: tuple[type, ...]) -> bool:
    # A lone surrogate (half an emoji, from a text cut at a fixed length) cannot be encoded as UTF-8.
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, allowed) and not isinstance(value, bool)


@dataclass(frozen=True)
class FileFormat:
    """A format: its parser, and the word for a row in messages."""

    parse: Callable[[DataSpec, Path, bytes], Reading]
    unit: str


FORMATS = {
    "tsv": FileFormat(_tsv, "line"),
    "csv": FileFormat(_csv, "line"),
    "json": FileFormat(_json, "item"),
    "jsonl": FileFormat(_jsonl, "line"),
    "parquet": FileFormat(_parquet, "row"),
}
