"""The sample's own thresholds: a model that has learnt nothing does not pass.

Models trained on shuffled labels are tested in `tests/models`, real ones in `tests/e2e`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.behavioural_tests import run_checklist
from pipeline.evaluation.promotion_gate import Compared, make_decision
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.sample import write_sample
from pipeline.store.figures import EvaluationFigures
from pipeline.tasks.registry import task_of
from tests.support.made_figures import evaluation
from tests.support.small_pipeline import sample_rows

if TYPE_CHECKING:
    from pipeline.tasks.trained import Trained

pytestmark = pytest.mark.torch

NAMES = ("nsmc", "klue-sts")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("gate") / "sample")


def recipe_of(name: str) -> Recipe:
    """Return the recipe of the sample, unchanged."""
    return load_recipe(name, "embedded", sample=True)


@dataclass(frozen=True)
class Dull:
    """A model that answers without having learnt anything."""

    reply: Callable[[pd.DataFrame], np.ndarray]

    def answer(self, rows: pd.DataFrame) -> np.ndarray:
        return self.reply(rows)


def failed(recipe: Recipe, test: pd.DataFrame, reply: Callable[[pd.DataFrame], np.ndarray]) -> set[str]:
    """Return the kinds of checks that a model with the answers of `reply` fails."""
    figures = evaluation({}).document() | {
        "test_without_train_texts": task_of(recipe).intervals(test["label"].to_numpy(), reply(test)),
        "behaviour": run_checklist(recipe, cast("Trained", Dull(reply))).figures,
    }
    decision = make_decision(recipe, EvaluationFigures.model_validate(figures), Compared(), None, None)
    kinds = {check.kind for check in decision.checks if not check.passed}
    assert decision.promote == (not kinds)
    return kinds


def always(recipe: Recipe, answer: float) -> Callable[[pd.DataFrame], np.ndarray]:
    """Return the probabilities of one label, or one score, for every text."""
    if recipe.kind == "regression":
        return lambda rows: np.full(len(rows), answer)
    return lambda rows: np.tile(np.eye(len(recipe.labels))[int(answer)], (len(rows), 1))


@pytest.mark.parametrize("name", NAMES)
def test_same_answer_for_all_fails_floors_and_behaviour(name: str, sample: Path) -> None:
    rows = sample_rows(recipe := recipe_of(name), sample)
    mean = rows["train"]["label"].mean()
    for answer in [0, 1] if recipe.kind == "classification" else [mean, 0.0, 2.0, 3.0, 4.0, 5.0]:
        assert failed(recipe, rows["test"], always(recipe, answer)) == {"floor", "behaviour"}


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_reach_the_floors(name: str, sample: Path) -> None:
    test = sample_rows(recipe := recipe_of(name), sample)["test"]
    texts = [column for column in ("text", "text_pair") if column in test]
    known = test.drop_duplicates(texts).set_index(texts)["label"]

    def reply(rows: pd.DataFrame) -> np.ndarray:
        found = known.reindex(pd.MultiIndex.from_frame(rows[texts]) if len(texts) > 1 else rows["text"]).fillna(0)
        return np.eye(len(recipe.labels))[found.astype(int)] if recipe.labels else found.to_numpy(float)

    # It passes no behavioural case.
    assert failed(recipe, test, reply) == {"behaviour"}


@pytest.mark.parametrize("name", NAMES)
def test_length_alone_fails(name: str, sample: Path) -> None:
    # Shortcuts that a generator might leave: the length of a text, or the difference between two.
    rows = sample_rows(recipe := recipe_of(name), sample)

    def length(table: pd.DataFrame) -> np.ndarray:
        first = table["text"].str.len().to_numpy(float)
        return -np.abs(first - table["text_pair"].str.len().to_numpy(float)) if "text_pair" in table else first

    labels = rows["train"]["label"].to_numpy(float)
    slope, intercept = np.polyfit(length(rows["train"]), labels, 1)

    def reply(table: pd.DataFrame) -> np.ndarray:
        line = slope * length(table) + intercept
        return line if recipe.kind == "regression" else np.eye(2)[(line > labels.mean()).astype(int)]

    assert "floor" in failed(recipe, rows["test"], reply)
