"""Read data files into tables, as the recipe describes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pipeline.data.formats import Reading, parse_content, row_unit
from pipeline.errors import AbsentDataError, DataError
from pipeline.recipes.data_schema import SUFFIXES
from pipeline.recipes.files import SHIPPED, published_files
from pipeline.recipes.schema import Recipe
from pipeline.texts import some_of, visible

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"})
#: Characters of an invalid label that a message shows.
LONGEST_LABEL = 60
TEXT_RULE = "every row has a text"


def source_splits(recipe: Recipe) -> tuple[Split, ...]:
    """Return the splits that have files: without a test file, test rows come from the train file."""
    return SPLITS[: len(recipe.data.files)]


def source_file(recipe: Recipe, directory: Path, split: Split, recipes: Sequence[Path] = SHIPPED) -> Path:
    """Return the path of the file of `split`, or of the directory of its files.

    `recipes` are the directories of all recipes. Raises DataError if the file or the directory is missing,
    AbsentDataError if the directory is for other recipes.
    """
    wanted = f"recipe {recipe.name} reads {' and '.join(recipe.data.files)} below it"
    if not directory.is_dir():
        raise DataError(
            f"{directory} is not a directory; set SAEBYEOK_DATA to the directory of the data files: {wanted}"
        )
    file = directory / recipe.data.files[SPLITS.index(split)]
    if not file.exists():
        _check_present(recipe, directory, recipes)
        raise DataError(f"{file} is missing; SAEBYEOK_DATA is {directory}, and {wanted}")
    return file


def source_files(recipe: Recipe, directory: Path, split: Split, recipes: Sequence[Path] = SHIPPED) -> tuple[Path, ...]:
    """Return the paths of the files of `split`: one, or those of the recipe's format in a directory, sorted.

    Raises as `source_file`, and DataError if the directory has no such file.
    """
    place = source_file(recipe, directory, split, recipes)
    if not place.is_dir():
        return (place,)
    suffixes = sorted(suffix for suffix, name in SUFFIXES.items() if name == recipe.data.format)
    visible_files = (path for path in sorted(place.iterdir()) if path.is_file() and not path.name.startswith("."))
    files = tuple(path for path in visible_files if path.suffix.lower() in suffixes)
    if not files:
        raise DataError(
            f"{place} is a directory without {recipe.data.format} files ({', '.join(suffixes)}); add them, or correct "
            "data.format"
        )
    return files


def _check_present(recipe: Recipe, directory: Path, recipes: Sequence[Path]) -> None:
    own = recipe.data.files
    known = {name: files for name, files in published_files(recipes).items() if name != recipe.name}
    others = [name for name, files in known.items() if all((directory / file).exists() for file in files)]
    if others and not any((directory / file).exists() for file in own):
        lacks = f"neither {own[0]} nor {own[1]}" if len(own) > 1 else f"no {own[0]}"
        raise AbsentDataError(
            f"{directory} has {lacks}, which recipe {recipe.name} reads; "
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
    unit = row_unit(recipe.data)
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
        _refuse(file, rule, [f"{row_unit(recipe.data)} {item.row}{item.detail}" for item in broken])
    return reading.rows


def read_file(recipe: Recipe, file: Path) -> Reading:
    """Read a file without validation: `row` int (line, item or row of the file, from 1), others str or null.

    Columns: `row`, `id` (without a column of ids, the file's name and the row), `text`, `text_pair` (pairs), `label`,
    `source` (optional). Carriage returns inside a text and empty texts are kept. Raises DataError if the encoding or
    the structure is invalid or there are no rows.
    """
    return parse_file(recipe, file, read_content(file))


def read_content(file: Path) -> bytes:
    """Return the content of a file. Raises DataError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; check its permissions") from error


def parse_file(recipe: Recipe, file: Path, content: bytes, name: str | None = None) -> Reading:
    """Return what `read_file` returns for a file with this content; `file` is for messages only.

    `name` begins the ids of rows if the recipe has no column of ids. Default: the file's name.
    """
    reading = parse_content(recipe.data, file, content)
    if reading.rows.empty and not reading.broken:
        raise DataError(f"{file} has no rows; rule: at least one (in a table, after the header); copy the file again")
    if recipe.data.id is None:
        reading.rows.insert(1, "id", [f"{name or file.name}:{row}" for row in reading.rows["row"]])
    return reading


def has_text(recipe: Recipe, rows: pd.DataFrame) -> pd.Series[bool]:
    """Return True for each row (n,) whose texts are all present; an empty text is present."""
    return rows[recipe.text_columns].notna().all(axis=1)


def has_label(recipe: Recipe, rows: pd.DataFrame) -> pd.Series[bool]:
    """Return True for each row (n,) that has a valid label."""
    return valid_numbers(recipe, rows["label"]).notna()


def texts_of(rows: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the texts in `columns` of each row; a missing one is empty."""
    return list(rows[list(columns)].fillna("").itertuples(index=False, name=None))


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
    """Return a label for messages, with its invisible characters escaped; NaN and None become "no label"."""
    if not isinstance(label, str):
        return "no label"
    return f"label {visible(label if len(label) <= LONGEST_LABEL else label[:LONGEST_LABEL] + '...')}"


def label_rule(recipe: Recipe) -> str:
    """Return the rule for valid labels as text."""
    return f"every `{recipe.data.label}` is {recipe.task.label_rule(recipe)}"


def write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a tab-separated file; tabs, line ends and backslashes in cells are escaped."""
    lines = ["\t".join(cell.translate(ESCAPES) for cell in row) for row in (names, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _refuse(file: Path, rule: str, places: Sequence[str]) -> None:
    if places:
        rows = "1 row breaks" if len(places) == 1 else f"{len(places):,} rows break"
        raise DataError(f'{file}: {rows} the rule "{rule}": {some_of(places)}')
