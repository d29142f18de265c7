"""Metrics for classification and regression, their bootstrap intervals, and the paired comparison of two models."""

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

#: Bootstrap resamples per interval. Their number and the seed are fixed so that figures are reproducible.
RESAMPLES = 1000
SEED = 20_240_229
#: Values per block of resamples, so that memory holds a block and not 1,000 copies of a large file.
BLOCK = 2_000_000


def compute_metrics(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, float]:
    """Return the recipe's metrics, each from 0 to 1 (Pearson's r from -1).

    Classification: `predictions` are probabilities (n, labels) or label numbers (n,). F1 is that of label 1 if there
    are two labels, and the macro average if there are more. Regression: `predictions` are scores (n,). For `f1`,
    labels and scores of at least `similar_at` are positive (KLUE paper, section 3.2.4, "STS": Pearson's r and F1 at
    3.0). Pearson's r of a constant prediction is NaN.
    """
    classes = _classes(recipe, predictions)
    truth = _classes(recipe, labels)
    average = "macro" if len(recipe.labels) > 2 else "binary"
    f1 = float(f1_score(truth, classes, average=average, zero_division=0.0))
    if recipe.kind == "classification":
        return {"accuracy": float(accuracy_score(truth, classes)), "f1": f1}
    return {"pearson": _pearson(labels, predictions), "f1": f1}


def intervals(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, dict[str, float]]:
    """Return each metric's `value` with `low` and `high`, the 95% percentile bootstrap over rows."""
    point = compute_metrics(recipe, labels, predictions)
    resample = _resampled_cells if recipe.kind == "classification" else _resampled_rows
    draws = resample(recipe, labels, predictions)
    bounds = {name: np.percentile(draws[name], [2.5, 97.5]) for name in point}
    return {
        name: {"value": value, "low": float(bounds[name][0]), "high": float(bounds[name][1])}
        for name, value in point.items()
    }


def first_interval(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, float]:
    """Return the first metric's `value` with `low` and `high` (95%), in closed form, for many small groups of rows.

    Accuracy gets Wilson's interval (a bootstrap of 40 right answers has zero width), Pearson's r gets Fisher's.
    Needs at least four rows. NaN if the metric has no value.
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
    """Return `count / rows` as `value`, with `low` and `high` of Wilson's 95% interval."""
    low, high = binomtest(count, rows).proportion_ci(0.95, method="wilson")
    return {"value": count / rows, "low": float(low), "high": float(high)}


def _resampled_cells(recipe: Recipe, labels: Numbers, predictions: Numbers) -> dict[str, Numbers]:
    # Rows in one cell of the confusion matrix are interchangeable, so drawing cell counts equals drawing n rows.
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
    """Yield the row indices of all resamples in blocks (resamples, rows); every call yields the same."""
    generator = np.random.default_rng(SEED)
    for block in np.array_split(np.arange(RESAMPLES), math.ceil(RESAMPLES * rows / BLOCK)):
        yield generator.integers(rows, size=(len(block), rows))


def _f1_of_matrices(matrices: Numbers) -> Numbers:
    """Return F1 as scikit-learn defines it, for confusion matrices (n, labels, labels); a call there takes 4 ms."""
    found = np.diagonal(matrices, axis1=1, axis2=2)
    named = matrices.sum(axis=1) + matrices.sum(axis=2)
    scores = np.divide(2 * found, named, out=np.zeros(found.shape), where=named > 0)
    if matrices.shape[1] == 2:
        return np.asarray(scores[:, 1])
    # The mean excludes labels that occur neither in the labels nor in the predictions.
    return np.asarray(scores.sum(axis=1) / (named > 0).sum(axis=1))


def paired_difference(recipe: Recipe, labels: Numbers, challenger: Numbers, champion: Numbers) -> dict[str, float]:
    """Return challenger minus champion on the first metric: `value`, with `low` and `high` of the 90% paired bootstrap.

    The gate compares `low`, the 5% quantile, with the non-inferiority margin (one-sided, 5%). NaN if either model has
    no value; such a comparison fails.
    """
    if recipe.kind == "classification":
        right, was_right = (_classes(recipe, item) == labels for item in (challenger, champion))
        # As in McNemar's test, only rows on which exactly one model is right matter, so drawing the three counts
        # equals drawing n rows.
        counts = np.array([(right & ~was_right).sum(), (was_right & ~right).sum(), (right == was_right).sum()])
        # Add half a row to each discordant count (Agresti and Min, 2005). Otherwise, models that agree on all of ten
        # rows would agree in every resample, which ten rows do not prove.
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
    """Return Pearson's r of each pair of rows of two (n, rows) arrays; NaN if either row is constant."""
    left, right = (side - side.mean(axis=1, keepdims=True) for side in (labels, predictions))
    constant = (np.ptp(labels, axis=1) == 0) | (np.ptp(predictions, axis=1) == 0)
    size = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
    return np.asarray(np.divide((left * right).sum(axis=1), size, out=np.full(len(size), np.nan), where=~constant))


def measure_calibration(labels: Numbers, probabilities: Numbers) -> dict[str, Any]:
    """Return the expected calibration error of probabilities (n, labels) and its reliability curve.

    `ece` is the mean over rows of |accuracy - mean confidence| of the row's bin. Confidence is the probability of
    the predicted label, in `BINS` bins of equal width, each open below and closed above (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", equation 3). `curve` has `low`, `high`, `rows`, `confidence` and
    `accuracy` of each bin that contains rows.
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
