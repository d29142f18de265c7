"""Pair classification: a label for each pair of texts, such as whether one follows from the other."""

from __future__ import annotations

from pipeline.recipes.kinds.classification import Classification
from pipeline.recipes.kinds.inputs import JoinedPair


class PairClassification(Classification, JoinedPair):
    """Labels of pairs, which a cross-encoder reads."""
