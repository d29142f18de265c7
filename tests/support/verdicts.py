"""Verdicts of the gate on figures and answers worked by hand, and the exact distribution behind a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polypow

from pipeline.evaluation.champions import Best
from pipeline.evaluation.promotion_gate import make_decision
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Check, Decision


def estimate(value: float) -> dict[str, float]:
    """An interval of its own, to be known again."""
    return {"value": value, "low": value - 0.125, "high": value + 0.0625}


def judged(
    recipe: Recipe,
    *compared: Check,
    test: Mapping[str, float] | None = None,
    behaviour: Mapping[str, float] | None = None,
    champion: Artifact | None = None,
    best: Best | None = None,
) -> Decision:
    """The decision on a model that is perfect but for these figures and comparisons."""
    tested = dict.fromkeys(recipe.metrics, 1.0) | (test or {})
    rates = dict.fromkeys(recipe.gate.behaviour, 1.0) | (behaviour or {})
    figures = {
        "test": {metric: estimate(value) for metric, value in tested.items()},
        "behaviour": {name: {"rate": estimate(value)} for name, value in rates.items()},
    }
    return make_decision(recipe, figures, compared, champion, best or Best())


def with_margin(recipe: Recipe, margin: float) -> Recipe:
    return recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"margin": margin})})


def won_and_lost(wins: int, losses: int, rows: int) -> tuple[Any, Any, Any]:
    """Labels, and the answers of a challenger that wins and loses so many of `rows` against a champion."""
    labels = np.arange(rows) % 2
    ours, theirs = labels.copy(), labels.copy()
    theirs[:wins] ^= 1
    ours[wins : wins + losses] ^= 1
    return labels, ours, theirs


def difference_quantile(wins: int, losses: int, rows: int, share: float) -> float:
    """The quantile `share` of (wins - losses) / rows, where `rows` are drawn as Agresti and Min would (2005).

    A row is won, lost or neither with the chances wins + 1/2, losses + 1/2 and the others of rows + 1; the distribution
    of their sum is that of `rows` such steps, one after the other.
    """
    step = np.array([losses + 0.5, rows - wins - losses, wins + 0.5]) / (rows + 1)
    reached = np.cumsum(polypow(step, rows))
    return (int(np.searchsorted(reached, share)) - rows) / rows


def noisy_scores(rows: int, noise: float) -> tuple[Any, Any]:
    """Scores from 0 to 5, and a model's, which are as far from them as `noise`."""
    generator = np.random.default_rng(4)
    labels = generator.uniform(0, 5, rows)
    return labels, np.clip(labels + generator.normal(0, noise, rows), 0, 5)


def two_scorers() -> tuple[Any, Any, Any]:
    """Labels, and the scores of two models, the first a little nearer to them."""
    labels, near = noisy_scores(150, 1.0)
    return labels, near, np.clip(labels + np.random.default_rng(5).normal(0, 1.2, 150), 0, 5)
