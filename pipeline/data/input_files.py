"""Input files of a run: the published files and the arrivals dated before it; maps rows to file and line."""

from __future__ import annotations

import hashlib
import re
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.bounds import most_of
from pipeline.data.formats import Reading
from pipeline.data.reading import Split, parse_file, read_content, source_files, source_splits
from pipeline.errors import DataError
from pipeline.recipes.files import SHIPPED
from pipeline.recipes.schema import Recipe

#: An arrival that was modified within this many seconds may still be being written: look at it twice.
FRESH_SECONDS = 60
#: Seconds between the two looks.
SETTLE_SECONDS = 2


@dataclass(frozen=True)
class InputFile:
    """A data file as it was read once; `name` is its path below the data directory, `date` its day (None: published).

    `fault` says why it could not be read; its content is then empty.
    """

    name: str
    path: Path
    content: bytes = field(repr=False)
    date: date | None = None
    fault: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class InputFiles:
    """All files that a run may read.

    `ignored` are names in the arrivals directory that are not a day's file, `unfinished` the files of days that are
    still being written.
    """

    published: dict[Split, tuple[InputFile, ...]]
    arrivals: tuple[InputFile, ...]
    ignored: tuple[str, ...]
    unfinished: tuple[str, ...]


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

    @property
    def shown(self) -> str:
        """The files for messages: the path of the only one or of the directory, and the number of arrivals."""
        files = [part.file for part in self.parts if part.file.date is None]
        arrivals = len(self.parts) - len(files)
        place = files[0].path if len(files) == 1 else f"{files[0].path.parent} ({len(files)} files)"
        return f"{place}{f' with {arrivals} arrivals' if arrivals else ''}"

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
    """Parse one file. Raises DataError if it could not be read, its structure is invalid or it has no rows."""
    if file.fault is not None:
        raise DataError(file.fault)
    return Part(file, parse_file(recipe, file.path, file.content, file.name))


def most_aside(recipe: Recipe, part: Part) -> int:
    """Return how many rows of a file may be set aside."""
    return most_of(part.count, recipe.data.quarantine)


def find_files(recipe: Recipe, directory: Path, cutoff: date, recipes: Sequence[Path] = SHIPPED) -> InputFiles:
    """Return the files of `recipe` below `directory`: published files, and arrivals dated before `cutoff` by date.

    `recipes` are the directories of all recipes.

    Every file is read once, here. An arrival that cannot be read raises no error here; `read_part` raises it for that
    day. Raises DataError if a published file is missing or cannot be read.
    """
    paths = {split: source_files(recipe, directory, split, recipes) for split in source_splits(recipe)}
    published = {
        split: tuple(InputFile(path.relative_to(directory).as_posix(), path, read_content(path)) for path in files)
        for split, files in paths.items()
    }
    dated, ignored = _dated(recipe, directory)
    known = {day: path for day, path in sorted(dated.items()) if day < cutoff}
    looks = {path: _look(path) for path in known.values()}
    if any(look and time.time() - look.modified < FRESH_SECONDS for look in looks.values()):
        time.sleep(SETTLE_SECONDS)
    arrivals, unfinished = [], []
    for day, path in known.items():
        file = _read(path.relative_to(directory).as_posix(), path, day)
        if _look(path) == looks[path]:
            arrivals.append(file)
        else:
            unfinished.append(file.name)
    return InputFiles(published, tuple(arrivals), tuple(ignored), tuple(unfinished))


def arrival_suffix(recipe: Recipe) -> str:
    """Return the suffix of the names of daily files: that of the train file, or of the format if it is a directory."""
    return Path(recipe.data.train).suffix or f".{recipe.data.format}"


def _dated(recipe: Recipe, directory: Path) -> tuple[dict[date, Path], list[str]]:
    spec, suffix = recipe.data.arrivals, arrival_suffix(recipe)
    dated: dict[date, Path] = {}
    ignored: list[str] = []
    for path in sorted((directory / spec.directory).glob("*")) if spec else ():
        day = _day_of(path, suffix)
        if day is None:
            ignored.append(path.name)
        else:
            dated[day] = path
    return dated, ignored


def _day_of(path: Path, suffix: str) -> date | None:
    # An allow-list: upload tools add suffixes and temporary names of many kinds.
    match = re.fullmatch(rf"(\d{{4}}-\d{{2}}-\d{{2}}){re.escape(suffix)}", path.name, re.ASCII)
    try:
        return date.fromisoformat(match[1]) if match and path.is_file() else None
    except ValueError:
        return None


class _Look(NamedTuple):
    """Size in bytes and time of the last change (seconds since the epoch) of a file."""

    size: int
    modified: float


def _look(path: Path) -> _Look | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Look(status.st_size, status.st_mtime)


def _read(name: str, path: Path, day: date) -> InputFile:
    try:
        return InputFile(name, path, read_content(path), day)
    except DataError as error:
        return InputFile(name, path, b"", day, fault=str(error))
