"""Arrivals: check each daily file against the days before it, and leave out files that differ too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.bounds import most_of
from pipeline.data.input_files import InputFile, Part, join_parts, most_aside, read_part
from pipeline.data.overlap import near_key
from pipeline.data.reading import SPLITS, Split, has_text, valid_numbers
from pipeline.errors import DataError
from pipeline.models.base_model import Base
from pipeline.recipes.data_schema import ArrivalsSpec, Chances, Level, Shares
from pipeline.recipes.schema import Recipe
from pipeline.store.acceptances import Acceptance
from pipeline.store.figures import FiguresPart
from pipeline.tasks.registry import task_of
from pipeline.tasks.task import Shift, more_in_first

if TYPE_CHECKING:
    from pipeline.models.tokenizer import WordCounter

#: Minimum number of earlier arrivals for a comparison.
LEAST = 3
#: Measures that compare a file with usual values. A person may accept such a deviation; a file that breaks one of the
#: other rules must be corrected.
ACCEPTABLE = frozenset({"rows seen before", "rows", "labels", "scores", "lengths", "unknown words", "champion"})
_WORST: tuple[Level, ...] = ("ok", "warning", "critical")


class Measure(FiguresPart):
    """One measured figure of an arrival and its usual value."""

    name: str
    found: str
    usual: str
    level: Level

    @classmethod
    def of(cls, shift: Shift, bounds: Chances) -> Self:
        """Return the measure of a difference, whose p-value and effect size are checked against `bounds`."""
        level = bounds.level_of(shift.chance, shift.effect)
        return cls(name=shift.name, found=shift.found, usual=shift.usual, level=level)


class Arrival(FiguresPart):
    """The result of checking one daily file."""

    file: str
    date: str
    sha256: str
    rows: int
    measures: tuple[Measure, ...]
    accepted: Acceptance | None = None
    "Who accepted the file. Its measures in `ACCEPTABLE` are then warnings at most."

    @property
    def level(self) -> Level:
        """The worst level among its measures."""
        return max((measure.level for measure in self.measures), key=_WORST.index, default="ok")

    @property
    def acceptable(self) -> bool:
        """Whether a person may accept the file although it is unusual."""
        return {measure.name for measure in self.measures if measure.level == "critical"} <= ACCEPTABLE

    def sentence(self, level: Level) -> str:
        """Return one line with the file name and each measure of `level`, and who accepted the file."""
        odd = [f"{item.name}: {item.found} (usual: {item.usual})" for item in self.measures if item.level == level]
        return f"{self.file}: {'; '.join(odd)}" + (f"; {self.accepted}" if self.accepted else "")


@dataclass
class _Known:
    """Ids and texts that have occurred (published files and accepted arrivals), and the most recent arrivals."""

    ids: set[str]
    texts: set[tuple[str, ...]]
    test_ids: set[str]
    test_texts: set[str]
    "Keys from `near_key`."
    recent: list[pd.DataFrame] = field(default_factory=list)
    since: list[pd.DataFrame] = field(default_factory=list)
    "The most recent arrivals from the last one on that a person accepted; empty if there is none."

    def add(self, table: pd.DataFrame, size: int, *, accepted: bool) -> None:
        """Add an accepted arrival; `size` is the number of most recent ones to keep."""
        self.ids |= _ids(table)
        self.texts |= _told(table)
        self.recent = [*self.recent, table][-size:]
        if accepted or self.since:
            self.since = [*([] if accepted else self.since), table][-size:]


def check_arrivals(
    recipe: Recipe,
    published: Mapping[Split, Sequence[Part]],
    files: Sequence[InputFile],
    doubts: Mapping[str, Sequence[Measure]],
    base: Base | None,
    accepted: Mapping[str, Acceptance],
) -> list[tuple[Arrival, Part | None]]:
    """Return the check of each file and its rows (None if rejected).

    Files come oldest first; each is compared with the accepted files before it. `doubts` maps a file's name to
    measures from other checks: the champion's accuracy on it (`pipeline.evaluation.champion_trial`), and rules that
    fail because of it when all files are combined (`pipeline.data.data_gate`). `base` provides the tokenizer; None if
    the recipe learns its own vocabulary. `accepted` maps the date of a file to its acceptance by a person.

    After a lasting change, one accepted file is enough: a later file is usual if it resembles the recent files, or the
    files since the last accepted one (including it).
    """
    spec = recipe.data.arrivals
    if spec is None or not files:
        return []
    # Imported here so that reusing a finished validation does not import transformers.
    from pipeline.models.tokenizer import WordCounter

    table, test = (_measured(recipe, join_parts(split, published[split]).rows) for split in SPLITS)
    words = WordCounter(base, table["joined"])
    known = _Known(
        ids=_ids(table),
        texts=_told(table),
        test_ids=_ids(test),
        test_texts=set(map(near_key, _told(test))),
    )
    checked: list[tuple[Arrival, Part | None]] = []
    for file in files:
        arrival, part, table = _check(recipe, spec, file, known, words, doubts, accepted.get(str(file.date)))
        checked.append((arrival, part))
        if part is not None:
            known.add(table, spec.recent, accepted=arrival.accepted is not None)
    return checked


def _check(
    recipe: Recipe,
    spec: ArrivalsSpec,
    file: InputFile,
    known: _Known,
    words: WordCounter,
    doubts: Mapping[str, Sequence[Measure]],
    accepted: Acceptance | None,
) -> tuple[Arrival, Part | None, pd.DataFrame]:
    about = {"file": file.name, "date": str(file.date), "sha256": file.digest}
    try:
        part = read_part(recipe, file)
    except DataError as error:
        found = str(error).removeprefix(str(file.path)).lstrip(": ")
        unreadable = Measure(name="reading", found=found, usual="it can be read", level="critical")
        return Arrival(**about, rows=0, measures=(unreadable,)), None, pd.DataFrame()
    table = _measured(recipe, part.reading.rows)
    table[["words", "unknown"]] = np.array(words.count(table["joined"]), dtype=int).reshape(-1, 2)
    measures = [_usable(recipe, part, table), _seen(spec, table, known), _leaked(spec, table, known)]
    # A file without readable rows has already failed; there is nothing to compare.
    if len(known.recent) >= LEAST and len(table):
        measures += _compared(recipe, spec, table, known)
    measures += doubts.get(file.name, [])
    if accepted is not None:
        measures = [_excused(item) for item in measures]
    arrival = Arrival(**about, rows=part.count, measures=tuple(measures), accepted=accepted)
    return arrival, None if arrival.level == "critical" else part, table


def _measured(recipe: Recipe, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns `id`, `texts` (a tuple), `joined`, and `number` (the label; NaN if invalid)."""
    columns = [rows[name].fillna("") for name in recipe.text_columns]
    texts = list(zip(*columns, strict=True))
    numbers = valid_numbers(recipe, rows["label"])
    return pd.DataFrame(
        {"id": rows["id"], "texts": texts, "joined": [" ".join(item) for item in texts], "number": numbers}
    )


def _usable(recipe: Recipe, part: Part, table: pd.DataFrame) -> Measure:
    unusable = table["number"].isna() | ~has_text(recipe, part.reading.rows)
    count, most = len(part.reading.broken) + int(unusable.sum()), most_aside(recipe, part)
    found, usual = f"{count:,} of {part.count:,}", f"at most {most:,}, by {recipe.data.quarantine:.1%}"
    return Measure(name="unusable rows", found=found, usual=usual, level="critical" if count > most else "ok")


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


def _ids(table: pd.DataFrame) -> set[str]:
    """Return the ids; a row without one repeats no other row."""
    return set(table["id"].dropna())


def _told(table: pd.DataFrame) -> set[tuple[str, ...]]:
    """Return the texts that are not blank, because two blank rows do not count as a repetition."""
    return {texts for texts in table["texts"] if any(text.strip() for text in texts)}


def _share(name: str, rows: Sequence[bool], bounds: Shares) -> Measure:
    count = sum(rows)
    found, usual = f"{count / max(1, len(rows)):.1%}", f"at most {bounds.warning:.1%}"
    return Measure(name=name, found=found, usual=usual, level=level_of_rows(bounds, count, len(rows)))


def _excused(measure: Measure) -> Measure:
    excused = measure.level == "critical" and measure.name in ACCEPTABLE
    return measure.model_copy(update={"level": "warning"}) if excused else measure


def level_of_rows(bounds: Shares, count: int, rows: int) -> Level:
    """Return the level of `count` of `rows` rows: ok, warning or critical."""
    if count > most_of(rows, bounds.critical):
        return "critical"
    return "warning" if count > most_of(rows, bounds.warning) else "ok"


def _compared(recipe: Recipe, spec: ArrivalsSpec, table: pd.DataFrame, known: _Known) -> list[Measure]:
    found = _compared_with(recipe, spec, table, known.recent)
    if not known.since or len(known.since) == len(known.recent):
        return found
    pairs = zip(found, _compared_with(recipe, spec, table, known.since), strict=True)
    return [milder(*pair) for pair in pairs]


def milder(one: Measure, other: Measure) -> Measure:
    """Return the measure with the milder level; `one` if they are equal."""
    return min(one, other, key=lambda item: _WORST.index(item.level))


def _compared_with(
    recipe: Recipe, spec: ArrivalsSpec, table: pd.DataFrame, earlier: Sequence[pd.DataFrame]
) -> list[Measure]:
    before = pd.concat(earlier, ignore_index=True)
    return [
        _rows(spec, len(table), [len(item) for item in earlier]),
        Measure.of(task_of(recipe).label_shift(table["number"].dropna(), before["number"].dropna()), spec.labels),
        _lengths(spec, table["joined"].str.len(), before["joined"].str.len()),
        _unknown(spec, table, before),
    ]


def _rows(spec: ArrivalsSpec, count: int, counts: Sequence[int]) -> Measure:
    usual = median(counts)
    factor = max(count / usual, usual / count) if count else float("inf")
    return Measure(name="rows", found=f"{count:,}", usual=f"{usual:,.0f}", level=spec.rows.level_of(factor))


def _lengths(spec: ArrivalsSpec, new: pd.Series[int], old: pd.Series[int]) -> Measure:
    difference = stats.ks_2samp(new, old, method="asymp")
    level = spec.lengths.level_of(float(difference.pvalue), float(difference.statistic))
    found, usual = (f"{side.median():.0f} characters, {(side == 0).mean():.1%} empty" for side in (new, old))
    return Measure(name="lengths", found=found, usual=usual, level=level)


def _unknown(spec: ArrivalsSpec, new: pd.DataFrame, old: pd.DataFrame) -> Measure:
    # Rank rows instead of counting words: the unknown words of one row are not independent, and a single text in
    # another script has dozens.
    shares = [side["unknown"] / side["words"].clip(lower=1) for side in (new, old)]
    chance, effect = more_in_first(*shares)
    found, usual = (f"{side['unknown'].sum() / max(1, side['words'].sum()):.2%}" for side in (new, old))
    return Measure(name="unknown words", found=found, usual=usual, level=spec.unknown.level_of(chance, effect))
