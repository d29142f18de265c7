"""Metrics of predicted labels: confusion matrix, accuracy, F1, and the figures of each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.metrics.arrays import Numbers


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
