"""The tasks of regression: scores, metrics and comparisons, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.regression import BiEncoderTask, RegressionTask
from pipeline.tasks.task import Shift, more_in_first

PAIRS = load_recipe("klue-sts", "embedded")
TASK, BI_ENCODER = RegressionTask(PAIRS), BiEncoderTask(PAIRS)
LABELS = np.array([1.0, 4.0, 2.0, 5.0])
#: One score of at least 3 too many.
SCORES = np.array([1.0, 4.0, 4.0, 5.0])


# --- labels of new rows ---


def test_scores_are_compared_by_welchs_test() -> None:
    new, old = pd.Series([1.0, 3.0]), pd.Series([2.0, 4.0, 2.0, 4.0])
    # Variances 2 of 2 rows and 4/3 of 4 rows; degrees of freedom by Welch and Satterthwaite.
    each = 1 + 1 / 3
    freedom = each**2 / (1 / 1 + (1 / 3) ** 2 / 3)
    chance = 2 * stats.t.sf(1 / np.sqrt(each), freedom)
    # The mean differs by 1 in a range of 4.
    task = RegressionTask(PAIRS.model_copy(update={"score_range": (1.0, 5.0)}))
    expected = Shift("scores", "mean 2.00", "3.00", pytest.approx(chance), pytest.approx(0.25))
    assert task.label_shift(new, old) == expected


@pytest.mark.parametrize(("score", "effect"), [(2.0, 0.0), (3.0, 0.2)])
def test_constant_new_scores_have_chance_zero(score: float, effect: float) -> None:
    shift = TASK.label_shift(pd.Series([score, score]), pd.Series([1.0, 2.0, 3.0]))
    assert (shift.chance, shift.effect) == (0.0, pytest.approx(effect))


# --- answers ---


def test_answers_are_one_number_per_row() -> None:
    answers = TASK.decode(np.array([[1.0], [2.5]]))
    assert answers.tolist() == [1.0, 2.5]
    assert TASK.predictions(answers, ()) is answers
    assert TASK.columns(answers).keys() == {"prediction"}
    assert TASK.columns(answers)["prediction"] is answers


def test_score_at_the_threshold_is_positive() -> None:
    classes = TASK.classes(np.array([2.99, 3.0, 5.0]))
    assert (classes.tolist(), classes.dtype) == ([0, 1, 1], np.int64)


# --- metrics ---


def test_metrics_of_scores_in_a_column_or_not() -> None:
    # Deviations of -2, 1, -1, 2 and -2.5, 0.5, 0.5, 1.5: their products sum to 8, their squares to 10 and 9.
    expected = {"pearson": pytest.approx(8 / np.sqrt(10 * 9)), "f1": pytest.approx(0.8)}
    assert TASK.metrics(LABELS, SCORES) == expected
    assert TASK.metrics(LABELS, SCORES[:, None]) == expected


def test_resampled_metrics_surround_those_of_the_rows() -> None:
    draws = TASK.resampled(LABELS, SCORES)
    assert draws.keys() == {"pearson", "f1"}
    assert draws["pearson"].shape == draws["f1"].shape
    assert np.nanmedian(draws["pearson"]) == pytest.approx(8 / np.sqrt(90), abs=0.05)
    # By how often the wrong row is drawn beside the two right ones.
    assert np.median(draws["f1"]) == pytest.approx(0.8)
    assert {0.0, round(2 / 3, 6), 0.8, 1.0} <= set(draws["f1"].round(6))


def test_resampled_metrics_of_right_scores_are_one() -> None:
    draws = TASK.resampled(LABELS, LABELS)
    assert set(draws["f1"]) <= {0.0, 1.0}
    assert draws["f1"].mean() > 0.9
    assert np.nanmin(draws["pearson"]) == pytest.approx(1.0)


def test_intervals_and_differences_are_of_pearsons_r() -> None:
    assert TASK.first_interval(LABELS, SCORES)["value"] == pytest.approx(8 / np.sqrt(90))
    labels = np.tile(LABELS, 10)
    assert TASK.difference(labels, labels, np.tile(SCORES, 10))["value"] == pytest.approx(1 - 8 / np.sqrt(90))


def test_influence_is_least_for_the_wrong_row() -> None:
    influence = TASK.influence(LABELS, SCORES)
    assert influence.shape == (4,)
    assert influence.argmin() == 2


def test_further_figures_are_none() -> None:
    assert TASK.further_figures(LABELS, SCORES) == {}


# --- quality on new rows, mistakes and behaviour ---


def test_quality_is_compared_by_absolute_errors() -> None:
    rows, test = pd.DataFrame({"label": [1.0, 4.0]}), pd.DataFrame({"prediction": [2.5, 3.0], "label": [2.0, 3.5]})
    shift = TASK.quality_shift(rows, np.array([2.0, 2.0]), (), test)
    chance, effect = more_in_first(np.array([1.0, 2.0]), np.array([0.5, 0.5]))
    assert shift == Shift("champion", "mean error 1.50", "0.50", chance, effect)


def test_equal_errors_keep_their_order() -> None:
    rows = range(40)
    test = pd.DataFrame({"id": rows, "text": "하나", "text_pair": "둘", "label": 2.0, "in_train": False})
    test["prediction"] = [3.0 if number % 2 else 1.5 for number in rows]
    assert TASK.worst_mistakes(test, 30)["id"].tolist() == [*range(1, 40, 2), *range(0, 20, 2)]


def test_watched_are_the_scores() -> None:
    assert TASK.watched(None, SCORES) is SCORES  # type: ignore[arg-type]


# --- bi-encoder ---


def test_combined_outputs_are_the_cosines_of_both_vectors() -> None:
    left = np.array([[1.0, 0.0, 0.0, 0.0], [0.6, 0.8, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    right = np.array([[1.0, 0.0, 0.0, 0.0], [0.8, 0.6, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    assert BI_ENCODER.combine([left, right]).tolist() == pytest.approx([1.0, 0.96, 0.0])


def test_cosines_are_judged_on_their_best_line() -> None:
    assert BI_ENCODER.judge(LABELS[:, None] / 5 - 0.2, LABELS) == {"pearson": pytest.approx(1.0), "f1": 1.0}


def test_lines_map_cosines_and_distances_to_scores() -> None:
    cosines = np.array([1.0, 0.5, -1.0])
    lines = BI_ENCODER.calibrate(lambda: (cosines[:, None], np.array([5.0, 4.0, 1.0])))
    assert lines.keys() == {"calibration", "euclidean"}
    assert lines["calibration"] == {"slope": pytest.approx(2.0), "intercept": pytest.approx(3.0)}
    # The distances are 0, 1 and 2.
    assert lines["euclidean"] == {"slope": pytest.approx(-2.0), "intercept": pytest.approx(16 / 3)}


def test_methods_are_compared_with_a_line_of_distances() -> None:
    found = TASK.intervals(LABELS, SCORES)
    cosines = np.array([0.5, 0.92, 0.68, 1.0])
    assert BI_ENCODER.compare_methods(LABELS, cosines, found, None) == {}
    methods = BI_ENCODER.compare_methods(LABELS, cosines, found, ScoreLine(slope=-4.0, intercept=5.0))
    compared = methods["similarity"]
    assert compared.keys() == {"cosine", "euclidean"}
    assert compared["cosine"] is found
    # Distances of 1, 0.4, 0.8 and 0 are scores of 1, 3.4, 1.8 and 5.
    assert compared["euclidean"]["f1"]["value"] == 1.0
    assert compared["euclidean"]["pearson"]["value"] == pytest.approx(np.corrcoef(LABELS, [1.0, 3.4, 1.8, 5.0])[0, 1])
