"""Intervals of metrics: bootstrap, Wilson, Fisher."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest, pearsonr

from pipeline.metrics.arrays import Numbers
from pipeline.metrics.correlation import pearson

#: A figure: `value`, with `low` and `high`, the ends of its interval.
Interval = dict[str, float]
#: Bootstrap resamples per interval. Their number and the seed are fixed so that figures are reproducible.
RESAMPLES = 1000
SEED = 20_240_229
#: Values per block of resamples, so that memory holds a block and not 1,000 copies of a large file.
BLOCK = 2_000_000


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
