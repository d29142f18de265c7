"""Tokenize: texts to token ids by the base model's own tokenizer, and the training texts into three sides."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.data.reading import text_columns
from pipeline.errors import DataError
from pipeline.job import Job
from pipeline.models.base_model import find_base
from pipeline.recipes.data_schema import DataSpec
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.stages.find_or_build import produce
from pipeline.store.artifacts import Artifact

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.tracking.tracker import Tracker

VERSION = 3
Side = Literal["train", "validation", "gate"]
SIDES: tuple[Side, ...] = ("train", "validation", "gate")


def tokenize(job: Job, validated: Artifact) -> Artifact:
    """Token ids of every row, in `train`, `validation`, `gate` and `test` parquet files, and the tokenizer.

    Columns: `id`, `label`, `input_ids` (truncated at `max_length`, not padded), `length`; for a cross-encoder
    `token_type_ids`; for a bi-encoder `input_ids_pair`. Figures: rows, share truncated, share of [UNK].
    """
    recipe = job.recipe
    base = find_base(job)
    fields = {
        "base": base.identity if base else SCRATCH,
        "vocabulary": recipe.model.scratch.vocabulary if base is None and recipe.model.scratch else None,
        "objective": recipe.model.objective,
        "max_length": recipe.model.max_length,
        "validation_share": recipe.data.validation_share,
        "gate_share": recipe.data.gate_share,
    }

    def build(draft: Path, _: Tracker) -> dict[str, Any]:
        # Here and not at the top: finished tokens are found again without transformers.
        from pipeline.models.tokenizer import write_encoded

        return write_encoded(recipe, base, validated, draft)

    return produce(job, "tokenize", VERSION, fields=fields, inputs={"validated": validated}, build=build)


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
    sides = np.array([side_of(texts, recipe.data) for texts in train[text_columns(recipe)].itertuples(index=False)])
    splits: dict[str, pd.DataFrame] = {side: train[sides == side].reset_index(drop=True) for side in SIDES}
    for side, rows in splits.items():
        if rows.empty:
            change = "lower data.validation_share" if side == "train" else f"raise data.{side}_share"
            raise DataError(f"{recipe.data.train}: no rows fall on the {side} side; {change} or add rows")
    return splits
