"""Parity of an exported file with the trained model on the same rows, and its bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.bounds import CHANCE, ERRORS, most_of
from pipeline.evaluation.metrics import compute_metrics
from pipeline.recipes.schema import ParityBound, Recipe

#: Differences in the unit of the answer, the share of changed labels, and the change of the first metric with its
#: standard error (`metric_error`).
Parity = dict[str, float]


def beyond(parity: Parity, bound: ParityBound, rows: int) -> str | None:
    """Return which figure of `parity`, measured on `rows` rows, exceeds its bound, as text; None if none does.

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
    differences = np.abs(answers - reference)
    if recipe.kind == "classification":
        changed = answers.argmax(axis=1) != reference.argmax(axis=1)
    else:
        changed = (answers >= recipe.similar_at) != (reference >= recipe.similar_at)
    first = recipe.metrics[0]
    before, after = (compute_metrics(recipe, labels, item)[first] for item in (reference, answers))
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
    before, after = (_influence(recipe, labels, item) for item in (reference, answers))
    return float((after - before).std() / math.sqrt(len(labels)))


def _influence(recipe: Recipe, labels: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the influence of each row on the first metric, (rows,): 1 if it is right, or its influence on Pearson's r.

    Source of the influence function of r: Devlin, Gnanadesikan and Kettenring (1975). NaN if all scores or labels are
    equal.
    """
    if recipe.kind == "classification":
        return np.asarray(answers.argmax(axis=1) == labels, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        left, right = ((side - side.mean()) / side.std() for side in (labels, answers.astype(np.float64)))
    return np.asarray(left * right - (left * right).mean() / 2 * (left**2 + right**2))
