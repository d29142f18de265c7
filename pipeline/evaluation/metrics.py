"""Metrics of both kinds, their bootstrap intervals, and the paired comparison of two models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import binomtest, pearsonr
from sklearn.metrics import accuracy_score, f1_score

from pipeline.recipes.schema import Recipe

#: Bins of equal width over 0 to 1, as in Guo et al. 2017.
BINS = 15
Numbers = np.ndarray[Any, Any]

#: Resamples behind an interval; fixed, as is the seed, so that a figure can be had again.
RESAMPLES = 1000
SEED = 20_240_229
#: Numbers in one block of resamples: a large file is not held in memory a thousand times.
BLOCK = 2_000_000


def compute_metrics(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, float]:
    """The recipe's metrics, each a number from 0 to 1 (Pearson's r from -1).

    Classification: `predictions` are probabilities (n, labels) or label numbers (n,); F1 is that of label 1
    where there are two, the mean over labels where there are more. Regression: scores (n,); `f1` takes both
    sides as positive from `similar_at` up (KLUE paper, section 3.2.4, "STS": Pearson's r and F1 at 3.0).
    A constant prediction has no r: NaN.
    """
    classes = _classes(recipe, predictions)
    truth = _classes(recipe, labels)
    average = "macro" if len(recipe.labels) > 2 else "binary"
    f1 = float(f1_score(truth, classes, average=average, zero_division=0.0))
    if recipe.kind == "classification":
        return {"accuracy": float(accuracy_score(truth, classes)), "f1": f1}
    return {"pearson": _pearson(labels, predictions), "f1": f1}


def intervals(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, dict[str, float]]:
    """Each metric's `value` with `low` and `high`, the 95% percentile bootstrap over rows."""
    point = compute_metrics(recipe, labels, predictions)
    resample = _resampled_cells if recipe.kind == "classification" else _resampled_rows
    draws = resample(recipe, labels, predictions)
    bounds = {name: np.percentile(draws[name], [2.5, 97.5]) for name in point}
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


def _resampled_cells(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, Numbers]:
    # Rows of one cell of the confusion matrix are alike: drawing n rows is drawing the cells' counts.
    size = len(recipe.labels)
    counts = np.bincount(labels * size + _classes(recipe, predictions), minlength=size * size)
    draws = np.random.default_rng(SEED).multinomial(len(labels), counts / len(labels), size=RESAMPLES)
    matrices = draws.reshape(RESAMPLES, size, size)
    accuracies = np.trace(matrices, axis1=1, axis2=2) / len(labels)
    return {"accuracy": accuracies, "f1": _f1_of_matrices(matrices)}


def _resampled_rows(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, Numbers]:
    cells = 2 * _classes(recipe, labels) + _classes(recipe, predictions)
    correlations, counts = [], []
    for rows in _drawn_rows(len(labels)):
        correlations.append(_correlations(labels[rows], predictions[rows]))
        counts.append((cells[rows][..., None] == np.arange(4)).sum(axis=1))
    matrices = np.concatenate(counts).reshape(RESAMPLES, 2, 2)
    return {"pearson": np.concatenate(correlations), "f1": _f1_of_matrices(matrices)}


def _drawn_rows(rows: int) -> Iterator[Numbers]:
    """Numbers of the rows of all resamples, (resamples, rows) in blocks; the same at every call."""
    generator = np.random.default_rng(SEED)
    for block in np.array_split(np.arange(RESAMPLES), math.ceil(RESAMPLES * rows / BLOCK)):
        yield generator.integers(rows, size=(len(block), rows))


def _f1_of_matrices(matrices: Numbers) -> Numbers:
    """What scikit-learn's F1 is, for confusion matrices (n, labels, labels) all at once: it takes 4 ms for each."""
    found = np.diagonal(matrices, axis1=1, axis2=2)
    named = matrices.sum(axis=1) + matrices.sum(axis=2)
    scores = np.divide(2 * found, named, out=np.zeros(found.shape), where=named > 0)
    if matrices.shape[1] == 2:
        return np.asarray(scores[:, 1])
    # A label that neither side has is no part of the mean.
    return np.asarray(scores.sum(axis=1) / (named > 0).sum(axis=1))


def paired_difference(recipe: Recipe, labels: Numbers, challenger: Numbers, champion: Numbers) -> dict[str, float]:
    """Challenger minus champion on the first metric: `value`, and `low` and `high` of its 90% paired bootstrap.

    `low`, the 5% quantile, is what a non-inferiority margin is held against (one-sided, 5%). NaN where either has
    no value: such a comparison is not passed.
    """
    if recipe.kind == "classification":
        right, was_right = (_classes(recipe, item) == labels for item in (challenger, champion))
        # Only rows on which one is right and the other wrong make a difference, as in McNemar's test; drawing n rows
        # is drawing how many are of each sort.
        counts = np.array([(right & ~was_right).sum(), (was_right & ~right).sum(), (right == was_right).sum()])
        # Half a row more of each sort that differs (Agresti and Min, 2005): of ten rows that agree nobody knows what
        # the eleventh would do, and drawn again they would always agree.
        chances = (counts + np.array([0.5, 0.5, 0.0])) / (len(labels) + 1)
        draws = np.random.default_rng(SEED).multinomial(len(labels), chances, size=RESAMPLES)
        value, differences = (counts[0] - counts[1]) / len(labels), (draws[:, 0] - draws[:, 1]) / len(labels)
    else:
        value = _pearson(labels, challenger) - _pearson(labels, champion)
        differences = np.concatenate(
            [
                _correlations(labels[rows], challenger[rows]) - _correlations(labels[rows], champion[rows])
                for rows in _drawn_rows(len(labels))
            ]
        )
    low, high = np.quantile(differences, [0.05, 0.95])
    return {"value": float(value), "low": float(low), "high": float(high)}


def _classes(recipe: Recipe, predictions: Numbers) -> Numbers:
    if recipe.kind == "regression":
        return np.asarray(predictions >= recipe.similar_at, dtype=np.int64)
    return predictions.argmax(axis=1) if predictions.ndim == 2 else predictions


def _pearson(labels: Numbers, predictions: Numbers) -> float:
    if not len(labels) or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(pearsonr(labels, predictions).statistic)


def _correlations(labels: Numbers, predictions: Numbers) -> Numbers:
    """Pearson's r of each row of two (n, rows); NaN where a side is constant."""
    left, right = (side - side.mean(axis=1, keepdims=True) for side in (labels, predictions))
    constant = (np.ptp(labels, axis=1) == 0) | (np.ptp(predictions, axis=1) == 0)
    size = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
    return np.asarray(np.divide((left * right).sum(axis=1), size, out=np.full(len(size), np.nan), where=~constant))


def measure_calibration(labels: Numbers, probabilities: Numbers) -> dict[str, Any]:
    """The expected calibration error of probabilities (n, labels), and the reliability curve behind it.

    `ece` is the mean over rows of |accuracy - mean confidence| of the row's bin; confidence is the probability of
    the label foreseen, in `BINS` bins of equal width, each open below and closed above (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", equation 3). `curve`: for each bin with rows `low`, `high`,
    `rows`, `confidence` and `accuracy`.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    curve = [_bin(place, confidence[places == place], right[places == place]) for place in np.unique(places)]
    error = sum(item["rows"] * abs(item["accuracy"] - item["confidence"]) for item in curve) / len(labels)
    return {"ece": float(error), "bins": BINS, "curve": curve}


def _bin(place: int, confidence: Numbers, right: Numbers) -> dict[str, Any]:
    return {
        "low": float(place / BINS),
        "high": float((place + 1) / BINS),
        "rows": len(right),
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
    }
