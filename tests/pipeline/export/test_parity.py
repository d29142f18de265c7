"""Parity of an exported file with the trained model, and which differences exceed a bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr

from pipeline.export.parity import Parity, beyond, change_error, measure_parity
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import ParityBound

Numbers = np.ndarray[Any, Any]

REVIEWS, PAIRS = (load_recipe(name, "embedded") for name in ("nsmc", "klue-sts"))
FP16, INT8 = REVIEWS.export.fp16, REVIEWS.export.int8
#: Standard errors from a figure to the lower end of its 99.9% interval, from a table of the normal distribution.
ERRORS = 3.0902


def flipped(rows: int, lost: int, won: int = 0) -> Parity:
    """Return the parity on `rows` reviews: the trained model alone is right on `lost`, the file alone on `won`."""
    before, after = np.tile([0.2, 0.8], (rows, 1)), np.tile([0.2, 0.8], (rows, 1))
    before[:won] = after[won : won + lost] = [0.8, 0.2]
    return measure_parity(REVIEWS, np.ones(rows, dtype=np.int64), before, after)


def parity(changed: float = 0.0, change: float = 0.0, error: float = 0.0) -> Parity:
    return {"largest_difference": 0.1, "changed_labels": changed, "metric_change": change, "metric_error": error}


# --- figures computed by hand ---


def test_parity_of_probabilities_by_hand() -> None:
    before = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.8, 0.2]])
    after = np.array([[0.9, 0.1], [0.4, 0.6], [0.55, 0.45], [0.8, 0.2]])
    assert measure_parity(REVIEWS, np.array([0, 1, 1, 0]), before, after) == {
        "largest_difference": pytest.approx(0.1),
        "mean_difference": pytest.approx(0.2 / 8),
        "changed_labels": 0.25,
        "metric_change": pytest.approx(0.25),
        # One of four rows changes from right to wrong: the variance is 1/4 - 1/16.
        "metric_error": pytest.approx(math.sqrt(3 / 16 / 4)),
    }


def test_parity_of_scores_by_hand() -> None:
    labels, before, after = np.array([0.0, 3.0, 5.0]), np.array([1.0, 2.9, 4.0]), np.array([1.0, 3.1, 4.0])
    found = measure_parity(PAIRS, labels, before, after)
    assert found["largest_difference"] == pytest.approx(0.2)
    assert found["mean_difference"] == pytest.approx(0.2 / 3)
    # A score that crosses 3.0 is a changed label.
    assert found["changed_labels"] == pytest.approx(1 / 3)
    expected = abs(pearsonr(labels, after).statistic - pearsonr(labels, before).statistic)
    assert found["metric_change"] == pytest.approx(expected)


def test_parity_of_equal_answers_is_zero() -> None:
    assert set(flipped(100, lost=0).values()) == {0.0}


def test_metric_that_rises_counts_as_one_that_falls() -> None:
    assert flipped(100, lost=0, won=7) == pytest.approx(flipped(100, lost=7))


def test_score_at_the_cut_counts_as_similar() -> None:
    labels = np.array([0.0, 3.0, 5.0])
    for score, changed in ((3.0, 0.0), (2.999, 1 / 3)):
        above, at = np.array([1.0, 3.5, 4.0]), np.array([1.0, score, 4.0])
        assert measure_parity(PAIRS, labels, above, at)["changed_labels"] == pytest.approx(changed)
        assert measure_parity(PAIRS, labels, at, above)["changed_labels"] == pytest.approx(changed)


def test_error_of_an_accuracy_change_uses_paired_rows() -> None:
    # 9 lost and 4 won of 200: mean -5/200, mean of squares 13/200.
    assert flipped(200, lost=9, won=4)["metric_error"] == pytest.approx(math.sqrt((13 / 200 - (5 / 200) ** 2) / 200))


@pytest.mark.parametrize("noise", [0.001, 0.1, 1.0, 4.0])
def test_error_of_a_correlation_change_is_the_jackknifes(noise: float) -> None:
    draw = np.random.default_rng(3)
    labels = draw.uniform(0, 5, 400)
    before = labels + draw.normal(0, 1, 400)
    after = before + draw.normal(0, noise, 400)

    def change(rows: Numbers) -> float:
        return float(pearsonr(labels[rows], after[rows]).statistic - pearsonr(labels[rows], before[rows]).statistic)

    left_out = [change(np.delete(np.arange(400), row)) for row in range(400)]
    jackknife = math.sqrt(399 * np.var(left_out))
    assert change_error(PAIRS, labels, before, after) == pytest.approx(jackknife, rel=0.03)


# --- bounds ---


@pytest.mark.parametrize("rows", [100, 500, 519, 1000, 50_000])
@pytest.mark.parametrize(("lost", "won"), [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("bound", [FP16, INT8])
def test_beyond_lets_single_flips_pass_on_any_rows(rows: int, lost: int, won: int, bound: ParityBound) -> None:
    assert beyond(flipped(rows, lost, won), bound, rows) is None


@pytest.mark.parametrize(
    ("bound", "rows", "most"),
    # The largest count that a share at the bound exceeds in at most one of 1,000 samples; test_bounds.py explains why.
    [(FP16, 100, 2), (FP16, 500, 4), (FP16, 1000, 5), (INT8, 100, 4), (INT8, 500, 9), (INT8, 1000, 13)],
)
def test_beyond_refuses_one_label_more_than_chance(bound: ParityBound, rows: int, most: int) -> None:
    half = most // 2
    assert beyond(flipped(rows, lost=most - half, won=half), bound, rows) is None
    found = beyond(flipped(rows, lost=most + 1 - half, won=half), bound, rows)
    share = (most + 1) / rows
    assert found == (
        f"changed_labels is {share:.5f} on {rows:,} rows of the test file: {most + 1} changed labels, at most {most} "
        f"allowed by a share of {bound.changed_labels:g} (set by the recipe's [export])"
    )


@pytest.mark.parametrize(("above", "refused"), [(-1e-6, False), (1e-6, True)])
def test_beyond_compares_the_lower_end_of_a_metric_change(above: float, refused: bool) -> None:
    least = FP16.metric_change + above
    found = beyond(parity(change=least + ERRORS * 0.01, error=0.01), FP16, 1000)
    # The table has four digits, so the error is about 1e-7.
    assert (found is not None) == refused


def test_beyond_says_change_lower_end_and_bound() -> None:
    assert beyond(parity(change=0.5, error=0.1), FP16, 1000) == (
        "metric_change is 0.50000 on 1,000 rows of the test file, at least 0.19098 by its 99.9% interval, "
        "above 0.0005 (set by the recipe's [export])"
    )


def test_beyond_lets_a_change_at_its_bound_pass() -> None:
    assert beyond(parity(change=FP16.metric_change), FP16, 1000) is None


def test_beyond_with_bounds_of_zero_allows_no_change() -> None:
    nothing = ParityBound(changed_labels=0.0, metric_change=0.0)
    assert beyond(parity(), nothing, 1000) is None
    assert "changed_labels" in str(beyond(parity(changed=1 / 1000), nothing, 1000))
    assert "metric_change" in str(beyond(parity(change=1e-6), nothing, 1000))


def test_beyond_on_many_rows_refuses_one_sided_changes() -> None:
    # 40 of 5,000 may be chance for a share of 0.005, but then half of them would be gains.
    assert beyond(flipped(5000, lost=20, won=20), INT8, 5000) is None
    assert "metric_change" in str(beyond(flipped(5000, lost=40), INT8, 5000))


def test_beyond_on_one_row_refuses_a_lost_label() -> None:
    assert beyond(flipped(1, lost=0), INT8, 1) is None
    assert beyond(flipped(1, lost=1), INT8, 1) is not None


def test_beyond_judges_scores_of_pairs() -> None:
    draw = np.random.default_rng(5)
    labels = draw.uniform(0, 5, 500)
    before = np.clip(labels + draw.normal(0, 1, 500), 0, 5)
    for noise, problem in ((0.0005, None), (0.01, None), (0.3, "changed_labels")):
        found = beyond(measure_parity(PAIRS, labels, before, before + draw.normal(0, noise, 500)), INT8, 500)
        assert found is None if problem is None else problem in str(found)
    # All scores stay on their side of the threshold, but in another order.
    shuffled = np.where(before >= 3, 8 - before, before)
    assert "metric_change" in str(beyond(measure_parity(PAIRS, labels, before, shuffled), INT8, 500))


def test_beyond_refuses_a_single_answer_that_is_nan() -> None:
    answers = np.tile([0.8, 0.2], (1000, 1))
    broken = answers.copy()
    # argmax of a row of NaN is the first label.
    broken[7] = np.nan
    found = measure_parity(REVIEWS, np.zeros(1000, dtype=np.int64), answers, broken)
    assert (found["changed_labels"], found["metric_change"]) == (0.0, 0.0)
    assert beyond(found, INT8, 1000) == "an answer is NaN or infinite on 1,000 rows of the test file"


@pytest.mark.parametrize("factor", [np.nan, 0.0])
def test_beyond_refuses_scores_without_a_correlation(factor: float) -> None:
    scores = np.array([1.0, 2.0, 2.5])
    found = measure_parity(PAIRS, scores, scores, scores * factor)
    assert beyond(found, ParityBound(changed_labels=1.0, metric_change=1.0), 3) is not None


@pytest.mark.parametrize("name", ["metric_change", "metric_error"])
def test_beyond_refuses_a_figure_that_is_nan(name: str) -> None:
    loose = ParityBound(changed_labels=1.0, metric_change=1.0)
    assert "metric_change is" in str(beyond(parity() | {name: math.nan}, loose, 100))
