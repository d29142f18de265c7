"""Read data files into tables, as the recipe describes them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.errors import AbsentDataError, DataError
from pipeline.recipes.files import SHIPPED, published_files
from pipeline.recipes.kinds.inputs import TEXTS
from pipeline.recipes.schema import Recipe
from pipeline.texts import composed, visible

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "UTF-8",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})
#: Characters of an invalid label that a message shows.
LONGEST_LABEL = 60
TEXT_RULE = "every row has a text"
#: Rows named in a message before "and N more".
SHOWN = 3


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


def source_file(recipe: Recipe, directory: Path, split: Split, recipes: Sequence[Path] = SHIPPED) -> Path:
    """Return the path of the file of `split`; `recipes` are the directories of all recipes.

    Raises DataError if the file or the directory is missing, AbsentDataError if the directory is for other recipes.
    """
    wanted = f"recipe {recipe.name} reads {recipe.data.train} and {recipe.data.test} below it"
    if not directory.is_dir():
        raise DataError(
            f"{directory} is not a directory; set SAEBYEOK_DATA to the directory of the data files: {wanted}"
        )
    file = directory / (recipe.data.train if split == "train" else recipe.data.test)
    if not file.is_file():
        _check_present(recipe, directory, recipes)
        raise DataError(f"{file} is missing; SAEBYEOK_DATA is {directory}, and {wanted}")
    return file


def _check_present(recipe: Recipe, directory: Path, recipes: Sequence[Path]) -> None:
    own = (recipe.data.train, recipe.data.test)
    known = {name: files for name, files in published_files(recipes).items() if name != recipe.name}
    others = [name for name, files in known.items() if all((directory / file).is_file() for file in files)]
    if others and not any((directory / file).is_file() for file in own):
        raise AbsentDataError(
            f"{directory} has neither {own[0]} nor {own[1]}, which recipe {recipe.name} reads; "
            f"it has the files of {', '.join(others)}; set SAEBYEOK_DATA to the directory with its files"
        )


def read_split(recipe: Recipe, directory: Path, split: Split) -> pd.DataFrame:
    """Read one split: `id` str, `text` str, `text_pair` str (pairs), `label` (int or float), `source` str (optional).

    Raises DataError with file, rows and rule.
    """
    return read_labelled(recipe, source_file(recipe, directory, split))


def read_labelled(recipe: Recipe, file: Path) -> pd.DataFrame:
    """Read any labelled file in the recipe's format; return the columns of `read_split`.

    Raises DataError with file, rows and rule if a text or a label is missing or invalid.
    """
    rows = read_rows(recipe, file)
    unit = row_unit(recipe)
    _refuse(file, TEXT_RULE, [f"{unit} {row}" for row in rows.loc[~has_text(recipe, rows), "row"]])
    bad = rows[~has_label(recipe, rows)]
    places = [f"{unit} {row} ({shown_label(label)})" for row, label in zip(bad["row"], bad["label"], strict=True)]
    _refuse(file, label_rule(recipe), places)
    return finished(recipe, rows, label_numbers(recipe, rows["label"]))


def finished(recipe: Recipe, rows: pd.DataFrame, numbers: pd.Series[float]) -> pd.DataFrame:
    """Return the table of `read_split`, from the rows of `read_rows` and the numbers of their valid labels."""
    return rows.drop(columns="row").assign(label=numbers.astype(recipe.task.label_type))


def read_rows(recipe: Recipe, file: Path) -> pd.DataFrame:
    """Return the rows of `read_file`. Raises DataError with rows and rule if any row is unreadable."""
    reading = read_file(recipe, file)
    for rule in dict.fromkeys(item.rule for item in reading.broken):
        broken = [item for item in reading.broken if item.rule == rule]
        _refuse(file, rule, [f"{row_unit(recipe)} {item.row}{item.detail}" for item in broken])
    return reading.rows


def read_file(recipe: Recipe, file: Path) -> Reading:
    """Read a file without validation: `row` int (line of a TSV, item of a JSON list, from 1), others str or null.

    Columns: `row`, `id`, `text`, `text_pair` (pairs), `label`, `source` (optional). Carriage returns inside a
    text and empty texts are kept. Raises DataError if the encoding or the structure is invalid or there are no rows.
    """
    return parse_file(recipe, file, read_content(file))


def read_content(file: Path) -> bytes:
    """Return the content of a file. Raises DataError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; check its permissions") from error


def parse_file(recipe: Recipe, file: Path, content: bytes) -> Reading:
    """Return what `read_file` returns for a file with this content; `file` is for messages only."""
    text = _decoded(file, content)
    reading = _tsv(recipe, file, text) if recipe.data.format == "tsv" else _json(recipe, file, text)
    if reading.rows.empty and not reading.broken:
        raise DataError(f"{file} has no rows; rule: at least one (in a TSV, after the header); copy the file again")
    return reading


def columns_of(recipe: Recipe) -> dict[str, str]:
    """Map Saebyeok's column names to those of the file."""
    names = {"id": recipe.data.id, **dict(zip(TEXTS, recipe.data.texts, strict=False)), "label": recipe.data.label}
    return names | ({"source": recipe.data.source} if recipe.data.source else {})


def row_unit(recipe: Recipe) -> str:
    """Return the word for a row in messages."""
    return "line" if recipe.data.format == "tsv" else "item"


def has_text(recipe: Recipe, rows: pd.DataFrame) -> pd.Series[bool]:
    """Return True for each row (n,) whose texts are all present; an empty text is present."""
    return rows[recipe.text_columns].notna().all(axis=1)


def has_label(recipe: Recipe, rows: pd.DataFrame) -> pd.Series[bool]:
    """Return True for each row (n,) that has a valid label."""
    return valid_numbers(recipe, rows["label"]).notna()


def label_numbers(recipe: Recipe, labels: pd.Series[str]) -> pd.Series[float]:
    """Return the numbers of labels in a data file; NaN if a label is missing or cannot be read."""
    numbers = {label: recipe.task.label_number(recipe, label) for label in labels.dropna().unique()}
    return labels.map(numbers).astype("float64")


def valid_numbers(recipe: Recipe, labels: pd.Series[str]) -> pd.Series[float]:
    """Return the numbers of `label_numbers`, with NaN for those out of range."""
    numbers = label_numbers(recipe, labels)
    valid = np.array([recipe.task.is_valid(recipe, number) for number in numbers], dtype=bool)
    return numbers.where(valid)


def shown_label(label: object) -> str:
    """Return a label for messages, in which nothing is invisible; NaN and None are no label."""
    if not isinstance(label, str):
        return "no label"
    return f"label {visible(label if len(label) <= LONGEST_LABEL else label[:LONGEST_LABEL] + '...')}"


def label_rule(recipe: Recipe) -> str:
    """Return the rule for valid labels as text."""
    return f"every `{recipe.data.label}` is {recipe.task.label_rule(recipe)}"


def some_of(places: Sequence[str], count: int | None = None) -> str:
    """Return the first few of `places` and the number of further ones; `count` is the total, if not their number."""
    more = (len(places) if count is None else count) - min(len(places), SHOWN)
    return ", ".join(places[:SHOWN]) + (f" and {more:,} more" if more else "")


def write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a tab-separated file; tabs, line ends and backslashes in cells are escaped."""
    lines = ["\t".join(cell.translate(ESCAPES) for cell in row) for row in (names, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _refuse(file: Path, rule: str, places: Sequence[str]) -> None:
    if places:
        rows = "1 row breaks" if len(places) == 1 else f"{len(places):,} rows break"
        raise DataError(f'{file}: {rows} the rule "{rule}": {some_of(places)}')


def _decoded(file: Path, content: bytes) -> str:
    if not content.strip():
        raise DataError(f"{file} is empty; copy the published file again")
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            raise DataError(
                f"{file}: line 1 begins with a byte order mark ({encoding}); rule: UTF-8 without a byte order mark; "
                "save the file again without it"
            )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        lines = [f"line {number}" for number, line in enumerate(content.split(b"\n"), 1) if not _decodes(line, "utf-8")]
        as_cp949 = "; it can be read as CP949: convert it with iconv -f CP949 -t UTF-8"
        hint = as_cp949 if _decodes(content, "cp949") else "; convert the file to UTF-8"
        raise DataError(
            f"{file}: {len(lines):,} {'line is' if len(lines) == 1 else 'lines are'} not UTF-8: {some_of(lines)}{hint}"
        ) from error


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _tsv(recipe: Recipe, file: Path, content: str) -> Reading:
    """Parse tab-separated lines with a header; no quoting, and only a line feed ends a line."""
    lines = content.removesuffix("\n").split("\n")
    if lines[0].endswith("\r"):  # CRLF line ends: the carriage return is not part of the text
        lines = [line.removesuffix("\r") for line in lines]
    header = lines[0].split("\t")
    wanted = columns_of(recipe)
    for column in wanted.values():
        if header.count(column) != 1:
            problem = "has no" if column not in header else "has more than one"
            raise DataError(
                f"{file}: line 1, the header, {problem} column `{column}`; "
                f"rule: {', '.join(wanted.values())}; found: {', '.join(header)[:200]}"
            )
    cells = [(number, line.split("\t")) for number, line in enumerate(lines[1:], 2)]
    rule = f"{len(header) - 1} tabs per line, for the columns {', '.join(header)}"
    broken = [Broken(n, rule, "\t".join(row), f" ({len(row) - 1})") for n, row in cells if len(row) != len(header)]
    whole = [(number, row) for number, row in cells if len(row) == len(header)]
    table: dict[str, Iterable[Any]] = {"row": pd.Series([number for number, _ in whole], dtype="int64")}
    for name, column in wanted.items():
        place = header.index(column)
        table[name] = pd.Series([_composed(name, row[place]) for _, row in whole], dtype="str")
    return Reading(pd.DataFrame(table), tuple(broken))


def _json(recipe: Recipe, file: Path, content: str) -> Reading:
    """Parse a JSON list of objects."""
    try:
        items = json.loads(content, parse_int=_whole)
    except RecursionError as error:
        raise DataError(f"{file}: values are nested too deeply; rule: one list of objects, one per row") from error
    except json.JSONDecodeError as error:
        ended = error.pos >= len(content.rstrip()) or error.msg.startswith("Unterminated string")
        cut = "the file ends too early: " if ended else ""
        raise DataError(
            f"{file}: line {error.lineno} is not JSON: {cut}{error.msg}; rule: one list of objects"
        ) from error
    if not isinstance(items, list):
        raise DataError(f"{file}: the file contains a {type(items).__name__}; rule: one list of objects, one per row")
    names = columns_of(recipe)
    rules = [_broken_rule(item, names) for item in items]
    broken = [
        Broken(number, rule, json.dumps(item))
        for number, (item, rule) in enumerate(zip(items, rules, strict=True), 1)
        if rule is not None
    ]
    whole = [(number, item) for number, (item, rule) in enumerate(zip(items, rules, strict=True), 1) if rule is None]
    table: dict[str, Iterable[Any]] = {"row": pd.Series([number for number, _ in whole], dtype="int64")}
    for name, key in names.items():
        values = (_at(item, key) for _, item in whole)
        cells = [None if _is_null(value) else _composed(name, str(value)) for value in values]
        table[name] = pd.Series(cells, dtype="str")
    return Reading(pd.DataFrame(table), tuple(broken))


def _composed(column: str, value: str) -> str:
    return composed(value) if column in (*TEXTS, "label") else value


def _broken_rule(item: Any, names: dict[str, str]) -> str | None:
    """Return the first reading rule that an item of a JSON list breaks; None if it is readable."""
    if not isinstance(item, dict):
        return "every item is an object"
    for name, key in names.items():
        value = _at(item, key)
        if value is _ABSENT:
            return f"every item has `{key}`"
        allowed = (str,) if name in TEXTS else (str, int, float)
        if not (value is None or _is_plain(value, allowed)):
            return f"every `{key}` is {'text' if name in TEXTS else 'text or a number'}"
    return None


_ABSENT = object()


def _at(item: Any, key: str) -> Any:
    """Return the value at a dotted key, or `_ABSENT`."""
    for part in key.split("."):
        if not isinstance(item, dict) or part not in item:
            return _ABSENT
        item = item[part]
    return item


def _whole(digits: str) -> int | float:
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
