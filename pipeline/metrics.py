"""Metrics of labels and scores, their intervals, and paired comparisons of two models; independent of recipes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm, pearsonr

#: Bins of equal width over 0 to 1, as in Guo et al. 2017.
BINS = 15
Numbers = np.ndarray[Any, Any]
#: A figure: `value`, with `low` and `high`, the ends of its interval.
Interval = dict[str, float]

#: Bootstrap resamples per interval. Their number and the seed are fixed so that figures are reproducible.
RESAMPLES = 1000
SEED = 20_240_229
#: Values per block of resamples, so that memory holds a block and not 1,000 copies of a large file.
BLOCK = 2_000_000
#: Rows by which the lower end of `accuracy_difference` is below zero if two models agree on all rows, however many.
UNSURE_ROWS = 2


def confusion(labels: Numbers, classes: Numbers, size: int) -> Numbers:
    """Return the confusion matrix (size, size) of two arrays of label numbers (n,): row label, column prediction."""
    return np.bincount(labels * size + classes, minlength=size * size).reshape(size, size)


def accuracy(labels: Numbers, classes: Numbers) -> float:
    """Return the share of `classes` (n,) that equal `labels` (n,)."""
    return float((labels == classes).mean())


def f1(matrices: Numbers) -> Numbers:
    """Return F1 as scikit-learn defines it, for confusion matrices (n, labels, labels).

    With two labels it is the F1 of label 1, with more labels the macro average. The F1 of a label that is never
    predicted right is 0.
    """
    found = np.diagonal(matrices, axis1=1, axis2=2)
    named = matrices.sum(axis=1) + matrices.sum(axis=2)
    scores = np.divide(2 * found, named, out=np.zeros(found.shape), where=named > 0)
    if matrices.shape[1] == 2:
        return np.asarray(scores[:, 1])
    # The mean excludes labels that occur neither in the labels nor in the predictions.
    return np.asarray(scores.sum(axis=1) / (named > 0).sum(axis=1))


def class_figures(matrix: Numbers, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows, precision, recall and F1 of each label of a confusion matrix (labels, labels).

    A figure is 0 if it has no value, because the label never occurs or is never predicted.
    """
    found, rows, named = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    figures = {
        "precision": found / np.maximum(named, 1),
        "recall": found / np.maximum(rows, 1),
        "f1": 2 * found / np.maximum(rows + named, 1),
    }
    return [
        {"label": name, "rows": int(rows[number])} | {key: float(values[number]) for key, values in figures.items()}
        for number, name in enumerate(names)
    ]


def pearson(labels: Numbers, scores: Numbers) -> float:
    """Return Pearson's r of two arrays (n,); NaN if either is constant."""
    if not len(labels) or np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return float("nan")
    return float(pearsonr(labels, scores).statistic)


def correlations(labels: Numbers, scores: Numbers) -> Numbers:
    """Return Pearson's r of each pair of rows of two (n, rows) arrays; NaN if either row is constant."""
    left, right = (side - side.mean(axis=1, keepdims=True) for side in (labels, scores))
    constant = (np.ptp(labels, axis=1) == 0) | (np.ptp(scores, axis=1) == 0)
    size = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
    return np.asarray(np.divide((left * right).sum(axis=1), size, out=np.full(len(size), np.nan), where=~constant))


def drawn_rows(rows: int) -> Iterator[Numbers]:
    """Yield the row indices of all resamples in blocks (resamples, rows); every call yields the same."""
    generator = np.random.default_rng(SEED)
    for block in np.array_split(np.arange(RESAMPLES), math.ceil(RESAMPLES * rows / BLOCK)):
        yield generator.integers(rows, size=(len(block), rows))


def drawn_matrices(matrix: Numbers) -> Numbers:
    """Return the confusion matrices (resamples, labels, labels) of resampled rows, from that of all rows."""
    # Rows in one cell of the confusion matrix are interchangeable, so drawing cell counts equals drawing rows.
    rows = int(matrix.sum())
    draws = np.random.default_rng(SEED).multinomial(rows, matrix.ravel() / rows, size=RESAMPLES)
    return draws.reshape(RESAMPLES, *matrix.shape)


def bootstrap_interval(value: float, draws: Numbers) -> Interval:
    """Return the 95% percentile interval of a metric, from its values (resamples,) in resamples of the rows."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}


def share_interval(count: int, rows: int) -> Interval:
    """Return the share `count / rows` with Wilson's 95% interval."""
    low, high = binomtest(count, rows).proportion_ci(0.95, method="wilson")
    return {"value": count / rows, "low": float(low), "high": float(high)}


def pearson_interval(labels: Numbers, scores: Numbers) -> Interval:
    """Return Pearson's r with Fisher's 95% interval; NaN if it has no value. Needs at least four rows."""
    if math.isnan(pearson(labels, scores)):
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    found = pearsonr(labels, scores)
    low, high = found.confidence_interval(0.95)
    return {"value": float(found.statistic), "low": float(low), "high": float(high)}


def accuracy_difference(right: Numbers, was_right: Numbers) -> Interval:
    """Return the difference of two models' accuracies with its 90% interval, from their correct rows (rows,) bool."""
    rows = len(right)
    # As in McNemar's test, only rows on which exactly one model is right matter, so drawing the three counts equals
    # drawing rows.
    counts = np.array([(right & ~was_right).sum(), (was_right & ~right).sum(), (right == was_right).sum()])
    # Add half a row to each discordant count (Agresti and Min, 2005). Otherwise, models that agree on all of ten rows
    # would agree in every resample, which ten rows do not prove.
    chances = (counts + np.array([0.5, 0.5, 0.0])) / (rows + 1)
    draws = np.random.default_rng(SEED).multinomial(rows, chances, size=RESAMPLES)
    return _difference((counts[0] - counts[1]) / rows, (draws[:, 0] - draws[:, 1]) / rows)


def pearson_difference(labels: Numbers, challenger: Numbers, champion: Numbers) -> Interval:
    """Return Pearson's r of `challenger` minus that of `champion`, with the 90% interval of the paired bootstrap."""
    blocks = [
        correlations(labels[rows], challenger[rows]) - correlations(labels[rows], champion[rows])
        for rows in drawn_rows(len(labels))
    ]
    return _difference(pearson(labels, challenger) - pearson(labels, champion), np.concatenate(blocks))


def _difference(value: float, draws: Numbers) -> Interval:
    low, high = np.quantile(draws, [0.05, 0.95])
    return {"value": float(value), "low": float(low), "high": float(high)}


def pearson_influence(labels: Numbers, scores: Numbers) -> Numbers:
    """Return the influence of each row on Pearson's r, (rows,); NaN if all scores or labels are equal.

    Source: Devlin, Gnanadesikan and Kettenring (1975).
    """
    with np.errstate(invalid="ignore"):
        left, right = ((side - side.mean()) / side.std() for side in (labels, scores.astype(np.float64)))
    return np.asarray(left * right - (left * right).mean() / 2 * (left**2 + right**2))


def accuracy_fall(right: Numbers, classes: Numbers, right_then: Numbers, then: Numbers) -> tuple[float, float]:
    """Return the expected accuracy, and the probability of an accuracy no higher than the observed one.

    `right` is bool (rows,) and `classes` the class of each row; `right_then` and `then` are the same for the test
    file. The normal approximation includes the uncertainty from the size of the test file. Rows whose class is not
    in the test file are ignored.
    """
    expected, variance, count, total = 0.0, 0.0, 0, 0
    for name in np.unique(classes):
        known, here = right_then[then == name], right[classes == name]
        if not len(known):
            continue
        # Smoothed: a share of exactly 0 or 1 would make a single deviation impossible.
        share = (known.sum() + 0.5) / (len(known) + 1)
        expected += share * len(here)
        variance += share * (1 - share) * (len(here) + len(here) ** 2 / len(known))
        count, total = count + int(here.sum()), total + len(here)
    if not total:
        return math.nan, 1.0
    return expected / total, float(norm.cdf((count + 0.5 - expected) / math.sqrt(variance)))


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
