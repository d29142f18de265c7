"""Pair regression: a score for each pair of texts, such as their similarity, by cross-encoder or bi-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.recipes.kinds.inputs import JoinedPair, SeparatePair, TextPair
from pipeline.recipes.kinds.regression import Regression, positive_at
from pipeline.recipes.kinds.task_kind import AnswerFields


class PairRegression(Regression, TextPair):
    """Scores of pairs."""

    route = "/similarity"

    def result(self, fields: AnswerFields, answer: Sequence[float]) -> dict[str, Any]:
        """Return the `score`, and whether the pair is `similar`."""
        (score,) = answer
        return {"score": score, "similar": score >= positive_at(fields)}


class CrossEncoderRegression(PairRegression, JoinedPair):
    """Scores from a model that reads both texts at once."""

    methods = ("cross-encoder",)


class BiEncoderRegression(PairRegression, SeparatePair):
    """Scores from the vectors of both texts, mapped to the score range by a fitted line for each method."""

    methods = ("cosine", "euclidean")
    has_vectors = True
    trains_head = False
    augments = True
