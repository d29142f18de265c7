"""Parity of an exported file with the trained model on the same rows, and its bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.bounds import CHANCE, ERRORS, most_of
from pipeline.recipes.schema import ParityBound, Recipe
from pipeline.tasks.registry import task_of

#: Differences in the unit of the answer, the share of changed labels, and the change of the first metric with its
#: standard error (`metric_error`).
Parity = dict[str, float]


def beyond(parity: Parity, bound: ParityBound, rows: int) -> str | None:
    """Return as text which figure of `parity` on `rows` rows exceeds its bound; None if all are within bounds.

    The figures vary with the sampled rows, and chance alone must not refuse a file. Therefore the number of changed
    labels is compared with `most_of`, and the lower end of the interval with the bound on the metric change. NaN
    exceeds any bound.
    """
    on, source = f"on {rows:,} rows of the test file", "set by the recipe's [export]"
    if not math.isfinite(parity["largest_difference"]):
        return f"an answer is NaN or infinite {on}"
    changed, most = round(parity["changed_labels"] * rows), most_of(rows, bound.changed_labels)
    if changed > most:
        allowed = f"{changed} changed labels, at most {most} allowed by a share of {bound.changed_labels:g}"
        return f"changed_labels is {parity['changed_labels']:.5f} {on}: {allowed} ({source})"
    change = parity["metric_change"]
    least = change - ERRORS * parity["metric_error"]
    if not least <= bound.metric_change:
        surely = f"at least {least:.5f} by its {1 - CHANCE:.1%} interval"
        return f"metric_change is {change:.5f} {on}, {surely}, above {bound.metric_change:g} ({source})"
    return None


def measure_parity(
    recipe: Recipe, labels: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]
) -> Parity:
    """Return the parity of `answers` with `reference`: differences, changed labels, and change of the first metric."""
    task, first = task_of(recipe), recipe.metrics[0]
    differences, changed = np.abs(answers - reference), task.classes(answers) != task.classes(reference)
    before, after = (task.metrics(labels, item)[first] for item in (reference, answers))
    return {
        "largest_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
        "changed_labels": float(changed.mean()),
        "metric_change": abs(after - before),
        "metric_error": change_error(recipe, labels, reference, answers),
    }


def change_error(
    recipe: Recipe, labels: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]
) -> float:
    """Return the standard error of the first metric's change from `reference` to `answers`, from sampling rows."""
    before, after = (task_of(recipe).influence(labels, item) for item in (reference, answers))
    return float((after - before).std() / math.sqrt(len(labels)))
