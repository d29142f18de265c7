"""Train, validation and gate splits of the train file, assigned by a hash of the text; near copies stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.data.formats import Reading
from pipeline.data.input_files import Part
from pipeline.data.overlap import near_key
from pipeline.data.reading import Split, texts_of
from pipeline.errors import DataError
from pipeline.recipes.data_schema import DataSpec
from pipeline.recipes.schema import Recipe
from pipeline.texts import composed

TrainSplit = Literal["train", "validation", "gate"]
#: The side that uses its rows most comes first.
TRAIN_SPLITS: tuple[TrainSplit, ...] = ("train", "validation", "gate")


def place_of(texts: tuple[str, ...]) -> float:
    """Return the place of a training row from 0 to 1, which depends on its text alone: gate rows come first.

    The order of a pair, the Unicode form and leading or trailing white space do not matter.
    """
    plain = sorted(composed(text).strip() for text in texts)
    digest = hashlib.blake2b("\x1f".join(plain).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def split_of(texts: tuple[str, ...], data: DataSpec) -> TrainSplit:
    """Return the split of a training row without near copies, by its text alone, so it is the same in every run."""
    place = place_of(texts)
    if place < data.gate_share:
        return "gate"
    return "validation" if place < data.gate_share + data.validation_share else "train"


def hold_out(recipe: Recipe, parts: Sequence[Part]) -> dict[Split, tuple[Part, ...]]:
    """Return the train and test parts of files without a test file: `data.test_share` of the texts are test rows.

    Near copies are in one split, as in `split_rows`. So a test row stays in the test part when the files grow, unless a
    near copy of it arrives that is a train row.
    """
    texts = texts_of(pd.concat([part.reading.rows for part in parts]), recipe.text_columns)
    own = pd.Series([place_of(item) >= 1 - recipe.data.test_share for item in texts])
    held = own.groupby([near_key(item) for item in texts]).transform("all").to_numpy()
    ends = accumulate(len(part.reading.rows) for part in parts)
    train, test = [], []
    for part, end in zip(parts, ends, strict=True):
        table = part.reading.rows
        chosen = held[end - len(table) : end]
        train.append(Part(part.file, Reading(table[~chosen].reset_index(drop=True), part.reading.broken)))
        # Another name, because the bounds on rows that are set aside are counted by name.
        file = replace(part.file, name=f"{part.file.name} (test rows)")
        test.append(Part(file, Reading(table[chosen].reset_index(drop=True), ())))
    return {"train": tuple(train), "test": tuple(test)}


def split_rows(recipe: Recipe, train: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of the train file in each split. Raises DataError if a split is empty.

    Near copies (`near_key`) are in one split: training if one of them is a training row, else validation if one of them
    is a validation row. So a row that is held out today was also held out when the file had only a part of today's
    rows, together with its near copies.
    """
    texts = texts_of(train, recipe.text_columns)
    own = pd.Series([TRAIN_SPLITS.index(split_of(item, recipe.data)) for item in texts], dtype="int64")
    together = own.groupby([near_key(item) for item in texts]).transform("min")
    assigned = np.array(TRAIN_SPLITS)[together.to_numpy()]
    splits: dict[str, pd.DataFrame] = {name: train[assigned == name].reset_index(drop=True) for name in TRAIN_SPLITS}
    for name, rows in splits.items():
        if rows.empty:
            change = "lower data.validation_share" if name == "train" else f"raise data.{name}_share"
            raise DataError(f"{recipe.data.train}: the {name} split has no rows; {change} or add rows")
    return splits


def gate_places(recipe: Recipe, gate: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the largest place among the near copies of each row of the gate split, (n,).

    A training held out the rows whose place is below its gate share, together with their near copies. Near copies of a
    gate row are always gate rows.
    """
    texts = texts_of(gate, recipe.text_columns)
    places = pd.Series(map(place_of, texts), dtype="float64")
    return places.groupby([near_key(item) for item in texts]).transform("max").to_numpy()
