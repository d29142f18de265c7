"""Input files of a run: the published files and the arrivals dated before it; maps rows to file and line."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import pandas as pd

from pipeline.data.reading import SPLITS, Reading, Split, read_file, source_file
from pipeline.errors import DataError
from pipeline.recipes.schema import Recipe
from pipeline.store.manifest import file_digest

DATED = re.compile(r"(\d{4}-\d{2}-\d{2})\.\w+")


@dataclass(frozen=True)
class InputFile:
    """A data file; `name` is its path below the data directory, `date` its arrival day (None for published files)."""

    name: str
    path: Path
    digest: str
    date: date | None = None


@dataclass(frozen=True)
class InputFiles:
    """All files that a run may read; `ignored` are files in the arrivals directory whose name is not a date."""

    published: dict[Split, InputFile]
    arrivals: tuple[InputFile, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One file of a split and its content."""

    file: InputFile
    reading: Reading

    @property
    def count(self) -> int:
        """Number of rows in the file, including unreadable ones."""
        return len(self.reading.rows) + len(self.reading.broken)

    @property
    def last(self) -> int:
        """Line or item number of its last row."""
        return max([0, *map(int, self.reading.rows["row"].tail(1)), *(item.row for item in self.reading.broken)])


@dataclass(frozen=True)
class SplitRows:
    """The rows of all files of a split in one table; `row` numbers continue across files (in the first: the line)."""

    split: Split
    parts: tuple[Part, ...]
    rows: pd.DataFrame

    @cached_property
    def _before(self) -> list[int]:
        return [0, *accumulate(part.last for part in self.parts)][:-1]

    def place(self, row: int) -> tuple[InputFile, int]:
        """Return the file of `row`, and its line or item number there."""
        number = bisect_right(self._before, row - 1) - 1
        return self.parts[number].file, row - self._before[number]

    def without(self, rows: Iterable[int]) -> SplitRows:
        """Return a copy without `rows`."""
        return replace(self, rows=self.rows[~self.rows["row"].isin(set(rows))].reset_index(drop=True))


def join_parts(split: Split, parts: Sequence[Part]) -> SplitRows:
    """Combine the files of a split."""
    before = [0, *accumulate(part.last for part in parts)][:-1]
    tables = [part.reading.rows for part in parts]
    numbered = [table.assign(row=table["row"] + shift) for table, shift in zip(tables, before, strict=True)]
    return SplitRows(split, tuple(parts), pd.concat(numbered, ignore_index=True))


def read_part(recipe: Recipe, file: InputFile) -> Part:
    """Read one file. Raises DataError if its encoding or structure is invalid or it has no rows."""
    return Part(file, read_file(recipe, file.path))


def find_files(recipe: Recipe, directory: Path, cutoff: date) -> InputFiles:
    """Return the files of `recipe` below `directory`: published files, and arrivals dated before `cutoff` by date.

    Raises DataError if a published file is missing or a day has two files.
    """
    names: dict[Split, str] = {"train": recipe.data.train, "test": recipe.data.test}
    paths = {split: source_file(recipe, directory, split) for split in SPLITS}
    published = {split: InputFile(names[split], path, file_digest(path)) for split, path in paths.items()}
    dated, ignored = _dated(recipe, directory)
    arrivals = [
        InputFile(path.relative_to(directory).as_posix(), path, file_digest(path), day)
        for day, path in sorted(dated.items())
        if day < cutoff
    ]
    return InputFiles(published, tuple(arrivals), tuple(ignored))


def _dated(recipe: Recipe, directory: Path) -> tuple[dict[date, Path], list[str]]:
    spec = recipe.data.arrivals
    dated: dict[date, Path] = {}
    ignored: list[str] = []
    for path in sorted((directory / spec.directory).glob("*")) if spec else ():
        day = _day_of(path)
        if day is None:
            ignored.append(path.relative_to(directory).as_posix())
        elif day in dated:
            raise DataError(f"{dated[day]} and {path} have the same date; rule: one file per day; remove one of them")
        else:
            dated[day] = path
    return dated, ignored


def _day_of(path: Path) -> date | None:
    match = DATED.fullmatch(path.name)
    try:
        return date.fromisoformat(match[1]) if match and path.is_file() else None
    except ValueError:
        return None
