"""The task of classification: answers, predictions, metrics and comparisons, by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.metrics.calibration import measure_calibration
from pipeline.metrics.classification import class_figures
from pipeline.metrics.comparison import UNSURE_ROWS
from pipeline.metrics.intervals import share_interval
from pipeline.recipes.behaviour import BehaviourTest
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.classification import ClassificationTask
from pipeline.tasks.task import Shift

REVIEWS = load_recipe("nsmc", "embedded")
TASK = ClassificationTask(REVIEWS)
THREE = ClassificationTask(REVIEWS.model_copy(update={"labels": ("negative", "neutral", "positive")}))
#: Of label 1, 0 and 1; their labels are 1, 1 and 1.
ANSWERS = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
LABELS = np.array([1, 1, 1])


def numbers(*counts: int) -> pd.Series[float]:
    """Return so many rows of each label."""
    return pd.Series([label for label, count in enumerate(counts) for _ in range(count)], dtype="int64")


# --- labels of new rows ---


def test_labels_are_compared_by_pearsons_chi_square() -> None:
    shift = TASK.label_shift(numbers(30, 70), numbers(50, 50))
    # 200 * (30 * 50 - 70 * 50)^2 / (100 * 100 * 80 * 120), with one degree of freedom.
    chance = math.erfc(math.sqrt(200 * 2000**2 / (100 * 100 * 80 * 120) / 2))
    assert shift == Shift("labels", "70.0% positive", "50.0% positive", pytest.approx(chance), pytest.approx(0.2))


def test_label_that_moved_most_is_named_with_its_shares() -> None:
    shift = THREE.label_shift(numbers(2, 5, 3), numbers(5, 4, 1))
    assert (shift.found, shift.usual) == ("20.0% negative", "50.0% negative")
    assert shift.effect == pytest.approx(0.3)


def test_label_that_nobody_has_does_not_count() -> None:
    with_it = THREE.label_shift(numbers(30, 70, 0), numbers(50, 50, 0))
    assert with_it.chance == TASK.label_shift(numbers(30, 70), numbers(50, 50)).chance


@pytest.mark.parametrize(("new", "old", "found"), [((0, 0), (5, 5), "0.0%"), ((0, 1), (0, 9), "100.0%")])
def test_labels_without_a_difference_have_chance_one(new: tuple[int, ...], old: tuple[int, ...], found: str) -> None:
    shift = TASK.label_shift(numbers(*new), numbers(*old))
    assert (shift.chance, shift.found) == (1.0, f"{found} positive")


# --- answers ---


def test_probabilities_are_not_calibrated() -> None:
    assert TASK.scale(ANSWERS, None) is ANSWERS


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("negative", "positive"), [1, 0, 1]),
        (("positive", "negative"), [0, 1, 0]),
        (("neutral", "positive"), [1, -1, 1]),
    ],
)
def test_predictions_match_labels_by_name(labels: tuple[str, ...], expected: list[int]) -> None:
    assert TASK.predictions(ANSWERS, labels).tolist() == expected


def test_columns_are_the_label_and_its_probability() -> None:
    columns = TASK.columns(ANSWERS)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "prediction": [1, 0, 1],
        "probability": [0.9, 0.8, 0.6],
    }


def test_classes_of_label_numbers_are_themselves() -> None:
    assert TASK.classes(ANSWERS).tolist() == [1, 0, 1]
    assert TASK.classes(LABELS) is LABELS


# --- metrics ---


def test_metrics_count_the_most_probable_label() -> None:
    labels = np.array([0, 1, 1, 1])
    # Two of three positive rows are found, and no other.
    assert TASK.metrics(labels, np.array([0, 1, 0, 1])) == {"accuracy": 0.75, "f1": pytest.approx(0.8)}
    assert TASK.metrics(LABELS, ANSWERS) == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(0.8)}


def test_resampled_metrics_surround_those_of_the_rows() -> None:
    labels = np.array([0, 1, 1, 1])
    draws = TASK.resampled(labels, np.array([0, 1, 0, 1]))
    assert draws.keys() == {"accuracy", "f1"}
    assert set(draws["accuracy"]) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert draws["accuracy"].mean() == pytest.approx(0.75, abs=0.02)
    assert draws["f1"].shape == draws["accuracy"].shape
    assert np.median(draws["f1"]) == pytest.approx(0.8, abs=0.02)


def test_first_interval_is_that_of_a_share() -> None:
    assert TASK.first_interval(LABELS, ANSWERS) == share_interval(2, 3)


def test_difference_is_challenger_minus_champion() -> None:
    labels = np.array([0, 1] * 20)
    champion = np.where(np.arange(40) < 10, 1 - labels, labels)
    assert TASK.difference(labels, labels, champion)["value"] == pytest.approx(0.25)


def test_rows_needed_grow_as_the_margin_shrinks() -> None:
    assert TASK.rows_needed(0.02) == math.ceil(UNSURE_ROWS / 0.02)


def test_influence_is_one_for_each_right_row() -> None:
    influence = TASK.influence(LABELS, ANSWERS)
    assert (influence.tolist(), influence.dtype) == ([1.0, 0.0, 1.0], np.float64)


def test_further_figures_are_calibration_and_labels() -> None:
    figures = TASK.further_figures(LABELS, ANSWERS)
    assert figures == {
        "calibration": measure_calibration(LABELS, ANSWERS),
        "classes": class_figures(np.array([[0, 0], [1, 2]]), REVIEWS.labels),
    }


# --- quality on new rows ---

#: Predictions of a model whose first label is `positive`: of ten rows of it, all are right, and of the others eight.
TEST = pd.DataFrame({"label": [0] * 10 + [1] * 10, "prediction": [0] * 10 + [1] * 8 + [0] * 2})


def test_quality_is_compared_label_by_label() -> None:
    rows = pd.DataFrame({"label": [1, 1, 0, 0]})
    answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    shift = TASK.quality_shift(rows, answers, ("positive", "negative"), TEST)
    # Three of four are right. The shares of both labels are smoothed: 10.5 of 11, and 8.5 of 11.
    expected = (10.5 + 8.5) / 22
    assert (shift.name, shift.found, shift.usual) == ("champion", "75.0% right", "86.4%")
    assert shift.effect == pytest.approx(expected - 0.75)
    assert 0 < shift.chance < 1


def test_labels_unknown_to_a_model_have_no_effect() -> None:
    shift = TASK.quality_shift(pd.DataFrame({"label": [1, 0]}), ANSWERS[:2], ("bad", "good"), TEST)
    assert (shift.chance, shift.effect) == (1.0, 0.0)


# --- mistakes and behaviour ---


def test_equally_confident_mistakes_keep_their_order() -> None:
    rows = range(40)
    test = pd.DataFrame(
        {
            "id": rows,
            "text": "글",
            "label": 1,
            "prediction": 0,
            "probability": [0.9 - number % 2 / 10 for number in rows],
            "in_train": False,
        }
    )
    assert TASK.worst_mistakes(test, 30)["id"].tolist() == [*range(0, 40, 2), *range(1, 20, 2)]


def test_watched_without_a_label_is_the_first_prediction() -> None:
    cases = [(0.9, 0.55), (0.2, 0.6), (0.4, 0.3)]
    answers = np.array([[[1 - positive, positive] for positive in case] for case in cases])
    test = BehaviourTest(capability="x", name="y", kind="invariance", cases=(("a", "b"),))
    np.testing.assert_allclose(TASK.watched(test, answers), [[0.9, 0.55], [0.8, 0.4], [0.6, 0.7]])
