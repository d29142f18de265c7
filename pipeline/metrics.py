"""Metrics of both kinds, their bootstrap intervals, and the paired comparison of two models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import binomtest, pearsonr
from sklearn.metrics import accuracy_score, f1_score

from pipeline.recipe import Recipe

Numbers = np.ndarray[Any, Any]

#: Resamples behind an interval; fixed, as is the seed, so that a figure can be had again.
RESAMPLES = 1000
SEED = 20_240_229


def compute_metrics(
    recipe: Recipe, labels: Numbers, predictions: Numbers, weights: Numbers | None = None
) -> dict[str, float]:
    """The recipe's metrics, each a number from 0 to 1 (Pearson's r from -1).

    Classification: `predictions` are probabilities (n, labels) or label numbers (n,); F1 is that of label 1
    where there are two, the mean over labels where there are more. Regression: scores (n,); `f1` takes both
    sides as positive from `similar_at` up (KLUE paper, section 3.2.4, "STS": Pearson's r and F1 at 3.0).
    `weights` (n,) count rows more than once. A constant prediction has no r: NaN.
    """
    classes = _classes(recipe, predictions)
    truth = labels if recipe.kind == "classification" else _classes(recipe, labels)
    average = "macro" if len(recipe.labels) > 2 else "binary"
    f1 = float(f1_score(truth, classes, average=average, sample_weight=weights, zero_division=0.0))
    if recipe.kind == "classification":
        return {"accuracy": float(accuracy_score(truth, classes, sample_weight=weights)), "f1": f1}
    return {"pearson": _pearson(labels, predictions), "f1": f1}


def intervals(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, dict[str, float]]:
    """Each metric's `value` with `low` and `high`, the 95% percentile bootstrap over rows."""
    point = compute_metrics(recipe, labels, predictions)
    resample = _resampled_cells if recipe.kind == "classification" else _resampled_rows
    draws = resample(recipe, labels, predictions)
    bounds = {name: np.percentile([draw[name] for draw in draws], [2.5, 97.5]) for name in point}
    return {
        name: {"value": value, "low": float(bounds[name][0]), "high": float(bounds[name][1])}
        for name, value in point.items()
    }


def first_interval(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, float]:
    """The first metric's `value` with `low` and `high`, 95%, in closed form: for many small groups of rows.

    Wilson's interval of an accuracy (a bootstrap of 40 right answers would be a point), Fisher's of an r.
    Needs four rows. NaN where there is no value.
    """
    if recipe.kind == "classification":
        right = int((labels == _classes(recipe, predictions)).sum())
        return share_interval(right, len(labels))
    if math.isnan(_pearson(labels, predictions)):
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    found = pearsonr(labels, predictions)
    low, high = found.confidence_interval(0.95)
    return {"value": float(found.statistic), "low": float(low), "high": float(high)}


def share_interval(count: int, rows: int) -> dict[str, float]:
    """`count` of `rows` as `value`, with `low` and `high` of Wilson's 95% interval."""
    low, high = binomtest(count, rows).proportion_ci(0.95, method="wilson")
    return {"value": count / rows, "low": float(low), "high": float(high)}


def _resampled_cells(recipe: Recipe, labels: Numbers, predictions: Numbers) -> list[dict[str, float]]:
    # Rows of one cell of the confusion matrix are alike: drawing n rows is drawing the cells' counts.
    pairs = np.stack([labels, _classes(recipe, predictions)], axis=1)
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    generator = np.random.default_rng(SEED)
    draws = generator.multinomial(len(labels), counts / len(labels), size=RESAMPLES)
    # A cell that was not drawn is left out, not weighed nothing: a label in it would count in the mean F1.
    return [
        compute_metrics(recipe, cells[weights > 0, 0], cells[weights > 0, 1], weights[weights > 0]) for weights in draws
    ]


def _resampled_rows(recipe: Recipe, labels: Numbers, predictions: Numbers) -> list[dict[str, float]]:
    generator = np.random.default_rng(SEED)
    draws = generator.integers(len(labels), size=(RESAMPLES, len(labels)))
    return [compute_metrics(recipe, labels[rows], predictions[rows]) for rows in draws]


def paired_difference(recipe: Recipe, labels: Numbers, challenger: Numbers, champion: Numbers) -> dict[str, float]:
    """Challenger minus champion on the first metric: `value`, and `low` and `high` of its 90% paired bootstrap.

    `low`, the 5% quantile, is what a non-inferiority margin is held against (one-sided, 5%). NaN where either has
    no value: such a comparison is not passed.
    """
    generator = np.random.default_rng(SEED)
    if recipe.kind == "classification":
        right, was_right = (_classes(recipe, item) == labels for item in (challenger, champion))
        # Only rows on which one is right and the other wrong make a difference, as in McNemar's test; drawing n rows
        # is drawing how many are of each sort.
        counts = np.array([(right & ~was_right).sum(), (was_right & ~right).sum(), (right == was_right).sum()])
        draws = generator.multinomial(len(labels), counts / len(labels), size=RESAMPLES)
        value, differences = (counts[0] - counts[1]) / len(labels), (draws[:, 0] - draws[:, 1]) / len(labels)
    else:
        value = _pearson(labels, challenger) - _pearson(labels, champion)
        rows = generator.integers(len(labels), size=(RESAMPLES, len(labels)))
        pairs = ((labels[row], challenger[row], champion[row]) for row in rows)
        differences = np.array([_pearson(truth, ours) - _pearson(truth, theirs) for truth, ours, theirs in pairs])
    low, high = np.quantile(differences, [0.05, 0.95])
    return {"value": float(value), "low": float(low), "high": float(high)}


def _classes(recipe: Recipe, predictions: Numbers) -> Numbers:
    if recipe.kind == "regression":
        return np.asarray(predictions >= recipe.similar_at, dtype=np.int64)
    return predictions.argmax(axis=1) if predictions.ndim == 2 else predictions


def _pearson(labels: Numbers, predictions: Numbers) -> float:
    if len(labels) < 2 or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(pearsonr(labels, predictions).statistic)
