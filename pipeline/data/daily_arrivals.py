"""Arrivals: check each daily file against the days before it, and leave out files that differ too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from scipy import stats

from pipeline.data.input_files import InputFile, Part, read_part
from pipeline.data.overlap import near_key
from pipeline.data.reading import Split, has_text
from pipeline.errors import DataError
from pipeline.models.base_model import Base
from pipeline.recipes.data_schema import ArrivalsSpec, Chances, Level, Shares, exceeds
from pipeline.recipes.schema import Recipe
from pipeline.tasks.registry import task_of
from pipeline.tasks.task import Shift

if TYPE_CHECKING:
    from pipeline.models.tokenizer import WordCounter

#: Minimum number of earlier arrivals for a comparison.
LEAST = 3


class Measure(BaseModel):
    """One measured figure of an arrival and its usual value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    found: str
    usual: str
    level: Level

    @classmethod
    def of(cls, shift: Shift, bounds: Chances) -> Self:
        """Return the measure of a difference whose chance is checked against `bounds`."""
        return cls(name=shift.name, found=shift.found, usual=shift.usual, level=bounds.level_of(shift.chance))


class Arrival(BaseModel):
    """The result of checking one daily file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    date: str
    sha256: str
    rows: int
    measures: tuple[Measure, ...]

    @property
    def level(self) -> Level:
        """The worst level among its measures."""
        levels = {measure.level for measure in self.measures}
        return "critical" if "critical" in levels else "warning" if "warning" in levels else "ok"

    def sentence(self, level: Level) -> str:
        """Return one line with the file name and each measure of `level`."""
        odd = [f"{item.name}: {item.found} (usual: {item.usual})" for item in self.measures if item.level == level]
        return f"{self.file}: {'; '.join(odd)}"


@dataclass
class _Known:
    """Ids and texts of the published files and the accepted arrivals, and the most recent arrivals."""

    ids: set[str]
    texts: set[tuple[str, ...]]
    test_ids: set[str]
    test_texts: set[str]
    "Keys from `near_key`."
    recent: list[pd.DataFrame] = field(default_factory=list)


def check_arrivals(
    recipe: Recipe,
    published: Mapping[Split, Part],
    files: Sequence[InputFile],
    doubts: Mapping[str, Sequence[Measure]],
    base: Base | None,
) -> list[tuple[Arrival, Part | None]]:
    """Return the check of each file and its rows (None if rejected).

    Files come oldest first; each is compared with the accepted files before it. `doubts` maps a file's name to
    measures from other checks: the champion's accuracy on it (`pipeline.evaluation.champion_trial`), and rules that
    fail because of it when all files are combined (`pipeline.data.data_gate`). `base` provides the tokenizer; None if
    the recipe learns its own vocabulary.
    """
    spec = recipe.data.arrivals
    if spec is None or not files:
        return []
    # Imported here so that reusing a finished validation does not import transformers.
    from pipeline.models.tokenizer import WordCounter

    table, test = _measured(recipe, published["train"]), _measured(recipe, published["test"])
    words = WordCounter(base, table["joined"])
    known = _Known(
        ids=set(table["id"]),
        texts=_told(table),
        test_ids=set(test["id"]),
        test_texts=set(map(near_key, _told(test))),
    )
    checked: list[tuple[Arrival, Part | None]] = []
    for file in files:
        arrival, part, table = _check(recipe, spec, file, known, words, doubts)
        checked.append((arrival, part))
        if part is None:
            continue
        known.ids |= set(table["id"])
        known.texts |= _told(table)
        known.recent = [*known.recent, table][-spec.recent :]
    return checked


def _check(
    recipe: Recipe,
    spec: ArrivalsSpec,
    file: InputFile,
    known: _Known,
    words: WordCounter,
    doubts: Mapping[str, Sequence[Measure]],
) -> tuple[Arrival, Part | None, pd.DataFrame]:
    about = {"file": file.name, "date": str(file.date), "sha256": file.digest}
    try:
        part = read_part(recipe, file)
    except DataError as error:
        found = str(error).removeprefix(str(file.path)).lstrip(": ")
        unreadable = Measure(name="reading", found=found, usual="it can be read", level="critical")
        return Arrival(**about, rows=0, measures=(unreadable,)), None, pd.DataFrame()
    table = _measured(recipe, part)
    table[["words", "unknown"]] = np.array(words.count(table["joined"]), dtype=int).reshape(-1, 2)
    measures = [_usable(recipe, part, table), _seen(spec, table, known), _leaked(spec, table, known)]
    # A file without readable rows has already failed; there is nothing to compare.
    if len(known.recent) >= LEAST and len(table):
        measures += _compared(recipe, spec, table, known)
    measures += doubts.get(file.name, [])
    arrival = Arrival(**about, rows=part.count, measures=tuple(measures))
    return arrival, None if arrival.level == "critical" else part, table


def _measured(recipe: Recipe, part: Part) -> pd.DataFrame:
    """Return the columns `id`, `texts` (a tuple), `joined`, and `number` (the label; NaN if invalid)."""
    rows = part.reading.rows
    columns = [rows[name].fillna("") for name in recipe.text_columns]
    texts = list(zip(*columns, strict=True))
    task = task_of(recipe)
    numbers = task.valid_numbers(task.label_numbers(rows["label"]))
    return pd.DataFrame(
        {"id": rows["id"], "texts": texts, "joined": [" ".join(item) for item in texts], "number": numbers}
    )


def _usable(recipe: Recipe, part: Part, table: pd.DataFrame) -> Measure:
    unusable = table["number"].isna() | ~has_text(recipe, part.reading.rows)
    count, bound = len(part.reading.broken) + int(unusable.sum()), recipe.data.quarantine
    level: Level = "critical" if exceeds(count, part.count, bound) else "ok"
    found = f"{count:,} of {part.count:,}"
    return Measure(name="unusable rows", found=found, usual=f"at most {bound:.1%}", level=level)


def _seen(spec: ArrivalsSpec, table: pd.DataFrame, known: _Known) -> Measure:
    # Not `isin`: it would build a column of all known rows again for every day.
    again = [id_ in known.ids or texts in known.texts for id_, texts in zip(table["id"], table["texts"], strict=True)]
    return _share("rows seen before", again, spec.seen)


def _leaked(spec: ArrivalsSpec, table: pd.DataFrame, known: _Known) -> Measure:
    """Measure data leakage: the share of rows that also occur in the test file."""
    of_test = [
        id_ in known.test_ids or near_key(texts) in known.test_texts
        for id_, texts in zip(table["id"], table["texts"], strict=True)
    ]
    return _share("rows of the test file", of_test, spec.leaked)


def _told(table: pd.DataFrame) -> set[tuple[str, ...]]:
    """Return the non-blank texts: two blank rows are not a repetition."""
    return {texts for texts in table["texts"] if any(text.strip() for text in texts)}


def _share(name: str, rows: Sequence[bool], bounds: Shares) -> Measure:
    share = sum(rows) / len(rows) if rows else 0.0
    usual = f"at most {bounds.warning:.1%}"
    return Measure(name=name, found=f"{share:.1%}", usual=usual, level=bounds.level_of(share))


def _compared(recipe: Recipe, spec: ArrivalsSpec, table: pd.DataFrame, known: _Known) -> list[Measure]:
    before = pd.concat(known.recent, ignore_index=True)
    return [
        _rows(spec, len(table), [len(item) for item in known.recent]),
        Measure.of(task_of(recipe).label_shift(table["number"].dropna(), before["number"].dropna()), spec.labels),
        _lengths(spec, table["joined"].str.len(), before["joined"].str.len()),
        _unknown(spec, table, before),
    ]


def _rows(spec: ArrivalsSpec, count: int, counts: Sequence[int]) -> Measure:
    usual = median(counts)
    factor = max(count / usual, usual / count) if count else float("inf")
    return Measure(name="rows", found=f"{count:,}", usual=f"{usual:,.0f}", level=spec.rows.level_of(factor))


def _lengths(spec: ArrivalsSpec, new: pd.Series[int], old: pd.Series[int]) -> Measure:
    chance = float(stats.ks_2samp(new, old, method="asymp").pvalue)
    found, usual = (f"{side.median():.0f} characters, {(side == 0).mean():.1%} empty" for side in (new, old))
    return Measure(name="lengths", found=found, usual=usual, level=spec.lengths.level_of(chance))


def _unknown(spec: ArrivalsSpec, new: pd.DataFrame, old: pd.DataFrame) -> Measure:
    # Rank rows instead of counting words: the unknown words of one row are not independent, and a single text in
    # another script has dozens.
    shares = [side["unknown"] / side["words"].clip(lower=1) for side in (new, old)]
    # Without unknown words there are no ranks to compare.
    chance = float(stats.mannwhitneyu(*shares, alternative="greater").pvalue) if new["unknown"].any() else 1.0
    found, usual = (f"{side['unknown'].sum() / max(1, side['words'].sum()):.2%}" for side in (new, old))
    return Measure(name="unknown words", found=found, usual=usual, level=spec.unknown.level_of(chance))
