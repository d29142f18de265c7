"""Overlap: duplicate texts, texts with two labels, and test texts in train; exact and normalised."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.data.formats import row_unit
from pipeline.data.input_files import SplitRows
from pipeline.data.reading import SPLITS, Split, label_numbers, texts_of, write_table
from pipeline.recipes.schema import Recipe
from pipeline.texts import composed

FILE = "overlap.tsv"
WHITE = re.compile(r"\s+")
RUN = re.compile(r"(.)\1{2,}")
OverlapKind = Literal["test_in_train", "two_labels", "duplicates"]
WORDS: dict[OverlapKind, str] = {
    "test_in_train": "have a text that is in the train file",
    "two_labels": "have a text that also occurs with another label",
    "duplicates": "repeat an earlier text of their file",
}


@dataclass(frozen=True)
class Overlap:
    """One kind of overlap in one split: number of rows by exact and by normalised text, and the bound."""

    kind: OverlapKind
    split: Split
    rows: int
    exact: int
    normalised: int
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the normalised share is within the recipe's bound.

        All rows of the files are counted, so no chance is allowed for (`pipeline.bounds`).
        """
        # Not `self.normalised <= bound * rows`: in floating point 0.29 * 100 is slightly below 29.
        return not self.normalised or self.normalised / self.rows <= self.bound

    @property
    def name(self) -> str:
        """The kind, prefixed with the split if the kind is measured in both."""
        return self.kind if self.kind == "test_in_train" else f"{self.split}_{self.kind}"

    @property
    def words(self) -> str:
        """The predicate of a sentence about the rows."""
        return WORDS[self.kind]


@dataclass(frozen=True)
class Repeated:
    """A row whose text also occurs elsewhere, exactly or only after normalisation (`match`)."""

    kind: str
    match: Literal["exact", "normalised"]
    file: str
    row: int
    label: str
    other: str
    "File and row of the first such text (in train, for a test row)."
    other_label: str
    text: str


def normalise(text: str) -> str:
    """Return `text` in NFC, without white space, runs of a character cut to two: 재밌어 ㅋㅋㅋㅋ equals 재밌어ㅋㅋ."""
    return RUN.sub(r"\1\1", WHITE.sub("", composed(text)))


def near_key(texts: Iterable[str]) -> str:
    """Return the key that near-duplicates share; the order of a pair does not matter."""
    return "\x1f".join(sorted(map(normalise, texts)))


def near_copies(rows: pd.DataFrame, among: pd.DataFrame, columns: Sequence[str]) -> pd.Series[bool]:
    """Return True for each of `rows` (n,) that has a near copy `among` other rows, by their text `columns`."""
    mine, others = ([near_key(item) for item in texts_of(side, columns)] for side in (rows, among))
    return pd.Series(mine, index=rows.index).isin(others)


def measure_overlap(recipe: Recipe, splits: Mapping[Split, SplitRows]) -> tuple[list[Overlap], list[Repeated]]:
    """Return every kind of overlap, and the rows of all kinds."""
    tables = {split: _keyed(recipe, rows.rows) for split, rows in splits.items()}
    asked: list[tuple[OverlapKind, Split]] = [("test_in_train", "test")]
    asked += [(kind, split) for split in SPLITS for kind in ("two_labels", "duplicates")]
    found: list[Overlap] = []
    listed: list[Repeated] = []
    for kind, split in asked:
        table, among = tables[split], tables["train" if kind == "test_in_train" else split]
        exact, near = (_repeats(kind, table, among, key) for key in ("exact", "near"))
        bound: float = getattr(recipe.data.overlap, kind)
        found.append(Overlap(kind, split, len(table), int(exact.sum()), int(near.sum()), bound))
        known = splits["train" if kind == "test_in_train" else split]
        listed += _listed(kind, splits[split], known, table.assign(is_exact=exact)[near], among)
    return found, listed


def write_overlap(recipe: Recipe, listed: Sequence[Repeated], path: Path) -> None:
    """Write the rows to a tab-separated file, in the format of the quarantine."""
    names = ["kind", "match", "file", row_unit(recipe.data), "label", "same as", "its label", "text"]
    write_table(path, names, [tuple(map(str, astuple(item))) for item in listed])


def _keyed(recipe: Recipe, rows: pd.DataFrame) -> pd.DataFrame:
    """Return `row`, `label`, `written`, `shown`, and the keys `exact` and `near`, by which texts are compared."""
    texts = texts_of(rows, recipe.text_columns)
    return pd.DataFrame(
        {
            "row": rows["row"].to_numpy(),
            "label": label_numbers(recipe, rows["label"]).to_numpy(),
            "written": rows["label"].fillna("").to_numpy(),
            "shown": [" | ".join(item) for item in texts],
            "exact": ["\x1f".join(item) for item in texts],
            "near": [near_key(item) for item in texts],
        }
    )


def _repeats(kind: OverlapKind, table: pd.DataFrame, among: pd.DataFrame, key: str) -> pd.Series[bool]:
    if kind == "test_in_train":
        return table[key].isin(among[key])
    if kind == "duplicates":
        return table.duplicated(key)
    return table.groupby(key)["label"].transform("nunique") > 1


def _listed(
    kind: OverlapKind,
    split: SplitRows,
    known: SplitRows,
    rows: pd.DataFrame,
    among: pd.DataFrame,
) -> list[Repeated]:
    """List each row with the first row of the same text; of `two_labels`, with the first that has another label."""
    firsts = among[among["near"].isin(rows["near"])].drop_duplicates(["near", "label"])
    options = defaultdict(list)
    for first in firsts.to_dict("records"):
        options[first["near"]].append(first)
    made = []
    for record in rows.to_dict("records"):
        others = options[record["near"]]
        other = next(item for item in others if kind != "two_labels" or item["label"] != record["label"])
        file, line = split.place(record["row"])
        other_file, other_line = known.place(other["row"])
        made.append(
            Repeated(
                kind=kind,
                match="exact" if record["is_exact"] else "normalised",
                file=file.name,
                row=line,
                label=record["written"],
                other=f"{other_file.name}:{other_line}",
                other_label=other["written"],
                text=record["shown"],
            )
        )
    return made
