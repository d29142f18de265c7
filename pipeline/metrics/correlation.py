"""Pearson's r of labels and scores, and the influence of each row on it."""

from __future__ import annotations

import numpy as np
from scipy.stats import pearsonr

from pipeline.metrics.arrays import Numbers


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


def pearson_influence(labels: Numbers, scores: Numbers) -> Numbers:
    """Return the influence of each row on Pearson's r, (rows,); NaN if all scores or labels are equal.

    Source: Devlin, Gnanadesikan and Kettenring (1975).
    """
    with np.errstate(invalid="ignore"):
        left, right = ((side - side.mean()) / side.std() for side in (labels, scores.astype(np.float64)))
    return np.asarray(left * right - (left * right).mean() / 2 * (left**2 + right**2))
