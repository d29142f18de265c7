"""Train, validation and gate splits of the train file, assigned by a hash of the text."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import DataError
from pipeline.recipes.data_schema import DataSpec
from pipeline.recipes.schema import Recipe
from pipeline.texts import composed

if TYPE_CHECKING:
    import pandas as pd

TrainSplit = Literal["train", "validation", "gate"]
TRAIN_SPLITS: tuple[TrainSplit, ...] = ("train", "validation", "gate")


def split_of(texts: tuple[str, ...], data: DataSpec) -> TrainSplit:
    """Return the split of a training row, which depends on its text alone and so is the same in every run.

    The order of a pair, the Unicode form and leading or trailing white space do not matter.
    """
    plain = sorted(composed(text).strip() for text in texts)
    digest = hashlib.blake2b("\x1f".join(plain).encode(), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    if place < data.gate_share:
        return "gate"
    return "validation" if place < data.gate_share + data.validation_share else "train"


def split_rows(recipe: Recipe, train: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of the train file in each split. Raises DataError if a split is empty."""
    texts = train[recipe.text_columns].itertuples(index=False)
    assigned = np.array([split_of(row, recipe.data) for row in texts])
    splits: dict[str, pd.DataFrame] = {name: train[assigned == name].reset_index(drop=True) for name in TRAIN_SPLITS}
    for name, rows in splits.items():
        if rows.empty:
            change = "lower data.validation_share" if name == "train" else f"raise data.{name}_share"
            raise DataError(f"{recipe.data.train}: the {name} split has no rows; {change} or add rows")
    return splits
