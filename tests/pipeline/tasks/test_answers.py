"""Answers in the outputs of a model: probabilities, and scores on a fitted line."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import TrainingDivergedError
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.registry import task_of
from pipeline.tasks.regression import distances_of, fit_line

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")


def test_probabilities_of_large_logits_do_not_overflow() -> None:
    answers = task_of(REVIEWS).decode(np.array([[1000.0, 0.0], [0.0, 0.0]]))
    assert answers.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_a_score_is_calibrated_and_then_clipped() -> None:
    task = task_of(PAIRS)
    cosines = np.array([-1.0, 0.2, 1.0])
    line = ScoreLine(slope=4.0, intercept=2.0)
    assert task.scale(cosines, line).tolist() == pytest.approx([0.0, 2.8, 5.0])
    assert task.scale(np.array([-3.0, 4.5, 7.0]), None).tolist() == [0.0, 4.5, 5.0]


def test_distances_are_those_of_the_vectors() -> None:
    draw = np.random.default_rng(3)
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in draw.normal(size=(2, 20, 8)))
    cosines = (left * right).sum(axis=1)
    assert distances_of(cosines) == pytest.approx(np.linalg.norm(left - right, axis=1))
    # The cosine of a text with itself may exceed 1 by rounding.
    assert distances_of(np.array([1.0 + 1e-7, -1.0])).tolist() == [0.0, 2.0]


def test_a_line_is_the_best_fit() -> None:
    line = fit_line(np.array([0.0, 0.5, 1.0]), np.array([1.0, 2.0, 3.0]))
    assert (line.slope, line.intercept) == (pytest.approx(2.0), pytest.approx(1.0))


def test_vectors_that_are_all_alike_have_no_line() -> None:
    with pytest.raises(TrainingDivergedError, match="collapsed"):
        fit_line(np.array([0.7, 0.7]), np.array([1.0, 4.0]))
