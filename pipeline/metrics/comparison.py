"""Comparison of two models on the same rows, and of one model's accuracy on new rows with an earlier one."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm

from pipeline.metrics.arrays import Numbers
from pipeline.metrics.correlation import correlations, pearson
from pipeline.metrics.intervals import RESAMPLES, SEED, Interval, drawn_rows

#: Rows by which the lower end of `accuracy_difference` is below zero if two models agree on all rows, however many.
UNSURE_ROWS = 2


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
