"""Metrics of cases computed by hand, their intervals, and comparisons of two models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, pearsonr
from sklearn.metrics import accuracy_score, f1_score

from pipeline.metrics import intervals
from pipeline.metrics.classification import class_figures, f1
from pipeline.metrics.correlation import correlations, pearson_influence
from pipeline.metrics.intervals import RESAMPLES, drawn_rows, share_interval
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.tasks.registry import task_of
from tests.support.verdicts import noisy_scores

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")
THREE = load_recipe("nsmc", "embedded", overrides={"labels": ["negative", "neutral", "positive"]})


def array(*values: float) -> Any:
    return np.array(values)


def noisy_labels(classes: int, rows: int, right: float) -> tuple[Any, Any]:
    generator = np.random.default_rng(3)
    labels = generator.integers(classes, size=rows)
    return labels, np.where(generator.random(rows) < right, labels, generator.integers(classes, size=rows))


def test_accuracy_and_f1_of_two_labels_by_hand() -> None:
    # True positives 2, false positives 1, false negatives 1, true negatives 1.
    found = task_of(REVIEWS).metrics(array(1, 1, 1, 0, 0), array(1, 1, 0, 1, 0))
    assert found == {"accuracy": pytest.approx(3 / 5), "f1": pytest.approx(2 * 2 / (2 * 2 + 1 + 1))}


def test_probabilities_count_by_their_largest() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    labels = array(0, 0, 1)
    assert task_of(REVIEWS).metrics(labels, probabilities) == task_of(REVIEWS).metrics(labels, array(0, 1, 1))


def test_f1_of_three_labels_is_their_mean_by_hand() -> None:
    # Label 0: 2 of 2 found, 1 wrongly: 4/5. Label 1: none: 0. Label 2: 1 of 1, 1 wrongly: 2/3.
    found = task_of(THREE).metrics(array(0, 0, 1, 1, 2), array(0, 0, 0, 2, 2))
    assert found["f1"] == pytest.approx((4 / 5 + 0 + 2 / 3) / 3)
    assert found["accuracy"] == pytest.approx(3 / 5)


def test_a_label_that_is_never_foreseen_has_no_f1() -> None:
    assert task_of(REVIEWS).metrics(array(1, 0, 1), array(0, 0, 0))["f1"] == 0.0


def test_label_with_one_row_counts_in_the_mean() -> None:
    # Label 0: F1 2 * 2 / (2 + 3). Label 1: never predicted. Label 2: 1.
    found = task_of(THREE).metrics(array(0, 0, 1, 2), array(0, 0, 0, 2))
    assert found["f1"] == pytest.approx((4 / 5 + 0 + 1) / 3)


def test_figures_of_each_label_by_hand() -> None:
    matrix = np.array([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert class_figures(matrix, ["often", "seldom", "once", "never"]) == [
        {"label": "often", "rows": 4, "precision": 3 / 5, "recall": 3 / 4, "f1": 6 / 9},
        {"label": "seldom", "rows": 6, "precision": 4 / 5, "recall": 4 / 6, "f1": 8 / 11},
        {"label": "once", "rows": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0},
        {"label": "never", "rows": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0},
    ]


def test_pearson_by_hand_and_f1_at_three() -> None:
    labels, scores = array(0.0, 3.0, 4.0, 5.0), array(1.0, 2.9, 3.0, 5.0)
    found = task_of(PAIRS).metrics(labels, scores)
    left, right = labels - labels.mean(), scores - scores.mean()
    assert found["pearson"] == pytest.approx((left @ right) / math.sqrt((left @ left) * (right @ right)))
    # 3.0 itself is positive in labels and predictions: two true positives and one false negative.
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 0 + 1))


def test_large_cases_agree_with_scipy_and_scikit_learn() -> None:
    labels, guesses = noisy_labels(2, 500, 0.6)
    assert task_of(REVIEWS).metrics(labels, guesses) == {
        "accuracy": accuracy_score(labels, guesses),
        "f1": f1_score(labels, guesses),
    }
    labels, scores = noisy_scores(500, 1.0)
    assert task_of(PAIRS).metrics(labels, scores) == {
        "pearson": pytest.approx(pearsonr(labels, scores).statistic),
        "f1": f1_score(labels >= 3.0, scores >= 3.0),
    }


@pytest.mark.parametrize(
    ("labels", "scores"),
    [(array(0.0, 3.0, 5.0), array(2.0, 2.0, 2.0)), (array(2.0, 2.0), array(1.0, 3.0)), (array(2.0), array(1.0))],
    ids=["constant prediction", "constant label", "one row"],
)
def test_a_constant_has_no_correlation(labels: Any, scores: Any) -> None:
    assert math.isnan(task_of(PAIRS).metrics(labels, scores)["pearson"])


def test_two_rows_have_a_correlation_no_rows_nan() -> None:
    assert task_of(PAIRS).metrics(array(1.0, 4.0), array(2.0, 2.5))["pearson"] == pytest.approx(1.0)
    assert all(map(math.isnan, task_of(PAIRS).first_interval(array(), array()).values()))


def test_correlation_of_a_constant_resample_is_nan() -> None:
    labels = np.array([[0.0, 1.0, 0.5], [2.0, 2.0, 2.0], [0.0, 1.0, 3.0], [0.0, 1.0, 2.0]])
    scores = np.array([[0.0, 1.0, 0.5], [0.0, 1.0, 2.0], [4.0, 4.0, 4.0], [2.0, 1.0, 0.0]])
    assert correlations(labels, scores) == pytest.approx([1.0, math.nan, math.nan, -1.0], nan_ok=True)


def weighted_pearson(labels: Any, scores: Any, weights: Any) -> float:
    table = np.cov(labels, scores, ddof=0, aweights=weights)
    return float(table[0, 1] / math.sqrt(table[0, 0] * table[1, 1]))


def test_influence_is_change_of_r_by_a_rows_weight() -> None:
    labels, scores = noisy_scores(20, 1.5)
    even, step = np.full(20, 1 / 20), 1e-6
    changes = [
        (weighted_pearson(labels, scores, even + step * (row - even)) - weighted_pearson(labels, scores, even)) / step
        for row in np.eye(20)
    ]
    assert pearson_influence(labels, scores) == pytest.approx(changes, abs=1e-4)


def test_influence_on_r_of_a_constant_is_nan() -> None:
    labels, alike = array(1.0, 2.0, 4.0), np.full(3, 2.5)
    assert np.isnan(pearson_influence(labels, alike)).all()
    assert np.isnan(pearson_influence(alike, labels)).all()


@pytest.mark.parametrize("recipe", [REVIEWS, THREE], ids=["two labels", "three labels"])
def test_metrics_of_a_confusion_matrix_match_its_rows(recipe: Recipe) -> None:
    size = len(recipe.labels)
    # Few rows, so that in some matrices a label is missing in the labels, the predictions, or both.
    matrices = np.random.default_rng(6).multinomial(5, np.full(size * size, 1 / size**2), size=25)
    found = f1(matrices.reshape(-1, size, size))
    for counts, score in zip(matrices, found, strict=True):
        cells = np.arange(size * size).repeat(counts)
        assert score == pytest.approx(task_of(recipe).metrics(cells // size, cells % size)["f1"])


@pytest.mark.parametrize("recipe", [REVIEWS, THREE], ids=["two labels", "three labels"])
def test_drawing_counts_of_cells_is_drawing_rows(recipe: Recipe) -> None:
    size = len(recipe.labels)
    labels, guesses = noisy_labels(size, 300, 0.7)
    by_cells = task_of(recipe).resampled(labels, guesses)
    drawn = (labels * size + guesses)[np.random.default_rng(8).integers(300, size=(1000, 300))]
    matrices = np.stack([np.bincount(row, minlength=size * size) for row in drawn]).reshape(-1, size, size)
    by_rows = {"accuracy": np.trace(matrices, axis1=1, axis2=2) / 300, "f1": f1(matrices)}
    for name in recipe.metrics:
        deviation = np.std(by_rows[name])
        assert np.std(by_cells[name]) == pytest.approx(deviation, rel=0.1)
        for quantile in (0.025, 0.5, 0.975):
            cells, rows = (np.quantile(draws[name], quantile) for draws in (by_cells, by_rows))
            assert cells == pytest.approx(rows, abs=0.4 * deviation)


def test_every_resample_has_the_figures_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of seven resamples, the last ones smaller.
    monkeypatch.setattr(intervals, "BLOCK", 7 * 40)
    labels, scores = noisy_scores(40, 1.0)
    found = task_of(PAIRS).resampled(labels, scores)
    blocks = list(drawn_rows(40))
    assert {block.shape for block in blocks} == {(7, 40), (6, 40)}
    drawn = np.concatenate(blocks)
    assert drawn.shape == (RESAMPLES, 40)
    for number in range(0, RESAMPLES, 37):
        rows = drawn[number]
        expected = task_of(PAIRS).metrics(labels[rows], scores[rows])
        assert {name: draws[number] for name, draws in found.items()} == pytest.approx(expected)


def test_label_missing_in_a_resample_is_excluded() -> None:
    # One row of label 2, predicted right: a resample without it has only two labels.
    labels = np.array([0, 1] * 10 + [2])
    assert set(task_of(THREE).resampled(labels, labels)["f1"]) == {1.0}


@pytest.mark.parametrize("recipe", [REVIEWS, PAIRS], ids=["classification", "regression"])
def test_interval_contains_value_and_narrows_with_rows(recipe: Recipe) -> None:
    widths = []
    for rows in (100, 900):
        classifies = recipe.kind == "classification"
        labels, guesses = noisy_labels(2, rows, 0.7) if classifies else noisy_scores(rows, 1.5)
        found = task_of(recipe).intervals(labels, guesses)
        assert set(found) == set(recipe.metrics)
        for figure in found.values():
            assert figure["low"] < figure["value"] < figure["high"]
        widths.append([figure["high"] - figure["low"] for figure in found.values()])
    # Nine times the rows give a third of the width.
    assert all(0.2 < small / large < 0.5 for large, small in zip(*widths, strict=True))


def test_interval_of_an_accuracy_is_binomial() -> None:
    labels = np.zeros(1000, dtype=int)
    guesses = np.arange(1000) >= 800
    figure = task_of(REVIEWS).intervals(labels, guesses.astype(int))["accuracy"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert figure["value"] == 0.8
    assert (figure["low"], figure["high"]) == pytest.approx((0.8 - half, 0.8 + half), abs=0.004)


def test_a_share_has_wilsons_interval_by_hand() -> None:
    # Centre (p + z2/2n) / (1 + z2/n) and half width z sqrt(p(1-p)/n + z2/4n2) / (1 + z2/n); p = 0.9, n = 100.
    z = 1.959964
    centre, below = (0.9 + z * z / 200) / (1 + z * z / 100), 1 + z * z / 100
    half = z * math.sqrt(0.9 * 0.1 / 100 + z * z / 40_000) / below
    assert share_interval(90, 100) == pytest.approx({"value": 0.9, "low": centre - half, "high": centre + half})


def test_interval_of_only_right_answers_has_width() -> None:
    found = task_of(REVIEWS).first_interval(np.ones(40, int), np.ones(40, int))
    assert found["value"] == found["high"] == 1.0
    assert 0.9 < found["low"] < 0.95


def test_the_interval_of_an_r_is_fishers_by_hand() -> None:
    labels, scores = noisy_scores(103, 1.5)
    found = task_of(PAIRS).first_interval(labels, scores)
    # artanh(r) has a standard deviation of 1 / sqrt(n - 3), here a tenth.
    r = pearsonr(labels, scores).statistic
    low, high = (math.tanh(math.atanh(r) + side * 1.959964 / 10) for side in (-1, 1))
    assert found == pytest.approx({"value": r, "low": low, "high": high})


@pytest.mark.parametrize("recipe", [REVIEWS, PAIRS], ids=["classification", "regression"])
def test_the_closed_form_agrees_with_the_bootstrap(recipe: Recipe) -> None:
    labels, answers = noisy_labels(2, 500, 0.7) if recipe is REVIEWS else noisy_scores(500, 1.5)
    task = task_of(recipe)
    drawn, closed = task.intervals(labels, answers)[recipe.metrics[0]], task.first_interval(labels, answers)
    assert closed == pytest.approx(drawn, abs=0.01)


def test_a_constant_score_has_no_interval() -> None:
    found = task_of(PAIRS).first_interval(array(1.0, 2.0, 3.0, 4.0), np.full(4, 2.5))
    assert all(math.isnan(found[name]) for name in ("value", "low", "high"))


#: Figures of the resamples that `SEED` draws: value, low and high of each metric.
DRAWN: dict[str, tuple[Recipe, tuple[Any, Any], dict[str, tuple[float, float, float]]]] = {
    "two labels": (
        REVIEWS,
        noisy_labels(2, 500, 0.7),
        {"accuracy": (0.866, 0.836, 0.894), "f1": (0.8646464646464647, 0.8296934480314341, 0.8938775510204081)},
    ),
    "three labels": (
        THREE,
        noisy_labels(3, 500, 0.7),
        {"accuracy": (0.806, 0.77, 0.84), "f1": (0.8051935856295818, 0.7698636802642462, 0.8394814460501209)},
    ),
    "scores": (
        PAIRS,
        noisy_scores(150, 1.5),
        {
            "pearson": (0.6832102157361806, 0.5878891265221708, 0.7673022826012598),
            "f1": (0.75177304964539, 0.6616482150257533, 0.8251906158357771),
        },
    ),
}


@pytest.mark.parametrize("case", DRAWN)
@pytest.mark.parametrize("block", [intervals.BLOCK, 7 * 150])
def test_intervals_are_the_same_on_every_machine(case: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Also with memory for only a few resamples at once.
    monkeypatch.setattr(intervals, "BLOCK", block)
    recipe, sides, expected = DRAWN[case]
    found = {name: tuple(figure.values()) for name, figure in task_of(recipe).intervals(*sides).items()}
    assert found.keys() == expected.keys()
    for name, figures in expected.items():
        assert found[name] == pytest.approx(figures, rel=1e-9)


def test_interval_of_an_r_is_scipys_bootstrap() -> None:
    labels, scores = noisy_scores(150, 1.5)
    found = task_of(PAIRS).intervals(labels, scores)["pearson"]

    def pearson(labels: Any, scores: Any, axis: int = -1) -> Any:
        return pearsonr(labels, scores, axis=axis).statistic

    wanted = bootstrap((labels, scores), pearson, paired=True, n_resamples=4000, method="percentile", rng=1)
    # With 1,000 draws, the error of a 2.5% quantile is within a tenth of the standard deviation.
    within = 0.3 * wanted.standard_error
    assert (found["low"], found["high"]) == pytest.approx(tuple(wanted.confidence_interval), abs=within)
