"""The models that a new one is compared with, and the gate rows on which they are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.checks import Check
from pipeline.store.decisions import Score

#: Fewest gate rows for a comparison of two models: agreement on a handful of rows proves nothing.
FEWEST = 30
Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rivals:
    """The earlier releases that a model is compared with besides the champion, on the same rows.

    `gate` are the gate rows with the model's predictions, and `counted`, bool (n,), tells which of them the training of
    every compared model held out. `scores` are the releases with their first metric on these rows; `best` is the
    release with the highest and `answers` are its predictions for these rows. `bar` is a failed check if a release is
    of another task. `notes` name releases that could not be compared.
    """

    gate: pd.DataFrame
    counted: Numbers
    scores: tuple[Score, ...] = ()
    best: Artifact | None = None
    answers: Numbers | None = None
    bar: Check | None = None
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> pd.DataFrame:
        """The gate rows on which all models are compared."""
        return self.gate[self.counted]


def fewest_rows(recipe: Recipe) -> int:
    """Return the fewest rows for a comparison: on fewer, two equal models would not be within the recipe's margin."""
    # Imported here: without a champion there is no comparison, and importing SciPy's statistics takes a second.
    from pipeline.tasks.registry import task_of

    return max(FEWEST, task_of(recipe).rows_needed(recipe.gate.margin))


def gate_rows(evaluated: Artifact) -> pd.DataFrame:
    """Return the gate rows of an evaluation, with its predictions."""
    return pd.read_parquet(evaluated.path / "gate.parquet")


def first_metric(recipe: Recipe, labels: Numbers, answers: Numbers) -> float:
    """Return the recipe's first metric of predictions; NaN if there are no rows."""
    from pipeline.tasks.registry import task_of

    return task_of(recipe).metrics(labels, answers)[recipe.metrics[0]] if len(labels) else math.nan
