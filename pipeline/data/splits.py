"""Train, validation and gate splits, cut from the train file by a hash of the text."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import DataError
from pipeline.recipes.data_schema import DataSpec
from pipeline.recipes.schema import Recipe

if TYPE_CHECKING:
    import pandas as pd

Side = Literal["train", "validation", "gate"]
SIDES: tuple[Side, ...] = ("train", "validation", "gate")


def side_of(texts: tuple[str, ...], data: DataSpec) -> Side:
    """The side on which a training row falls: a function of its text alone, so it stays there night after night.

    The order of a pair, Unicode form and outer white space do not matter.
    """
    plain = sorted(unicodedata.normalize("NFC", text).strip() for text in texts)
    digest = hashlib.blake2b("\x1f".join(plain).encode(), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    if place < data.gate_share:
        return "gate"
    return "validation" if place < data.gate_share + data.validation_share else "train"


def split_rows(recipe: Recipe, train: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of the train file on each side. Raises DataError where a side is left empty."""
    sides = np.array([side_of(texts, recipe.data) for texts in train[recipe.text_columns].itertuples(index=False)])
    splits: dict[str, pd.DataFrame] = {side: train[sides == side].reset_index(drop=True) for side in SIDES}
    for side, rows in splits.items():
        if rows.empty:
            change = "lower data.validation_share" if side == "train" else f"raise data.{side}_share"
            raise DataError(f"{recipe.data.train}: no rows fall on the {side} side; {change} or add rows")
    return splits
