"""Decisions of the gate on hand-made figures and answers, and the exact distribution behind a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polypow

from pipeline.evaluation.promotion_gate import Compared, make_decision
from pipeline.evaluation.rivals import Rivals
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.checks import Check
from pipeline.store.decisions import Decision, Score
from tests.support.made_figures import evaluation


def judged(
    recipe: Recipe,
    *compared: Check,
    test: Mapping[str, float] | None = None,
    new_texts: Mapping[str, float] | None = None,
    behaviour: Mapping[str, float] | None = None,
    champion: Artifact | None = None,
    rivals: Rivals | None = None,
    scores: tuple[Score, ...] = (),
) -> Decision:
    """Return the decision on a model that is perfect except for these figures and comparisons."""
    tested = dict.fromkeys(recipe.metrics, 1.0) | (test or {})
    new = tested | (new_texts or {})
    rates = dict.fromkeys(recipe.gate.behaviour, 1.0) | (behaviour or {})
    figures = evaluation(tested, new_texts=new, behaviour=rates)
    return make_decision(recipe, figures, Compared(compared, scores), champion, rivals)


def with_margin(recipe: Recipe, margin: float) -> Recipe:
    return recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"margin": margin})})


def won_and_lost(wins: int, losses: int, rows: int) -> tuple[Any, Any, Any]:
    """Return labels and the answers of a challenger with the given wins and losses in `rows` against a champion."""
    labels = np.arange(rows) % 2
    ours, theirs = labels.copy(), labels.copy()
    theirs[:wins] ^= 1
    ours[wins : wins + losses] ^= 1
    return labels, ours, theirs


def difference_quantile(wins: int, losses: int, rows: int, share: float) -> float:
    """Return the quantile `share` of (wins - losses) / rows for rows drawn as in Agresti and Min (2005).

    The weights of a win, a loss and a tie are wins + 1/2, losses + 1/2 and the rest of rows + 1; the distribution
    of the sum is the convolution of `rows` such steps.
    """
    step = np.array([losses + 0.5, rows - wins - losses, wins + 0.5]) / (rows + 1)
    reached = np.cumsum(polypow(step, rows))
    return (int(np.searchsorted(reached, share)) - rows) / rows


def noisy_scores(rows: int, noise: float) -> tuple[Any, Any]:
    """Return scores from 0 to 5, and a model's scores with errors of the size `noise`."""
    generator = np.random.default_rng(4)
    labels = generator.uniform(0, 5, rows)
    return labels, np.clip(labels + generator.normal(0, noise, rows), 0, 5)


def two_scorers() -> tuple[Any, Any, Any]:
    """Return labels and the scores of two models, the first slightly more accurate."""
    labels, near = noisy_scores(150, 1.0)
    return labels, near, np.clip(labels + np.random.default_rng(5).normal(0, 1.2, 150), 0, 5)
