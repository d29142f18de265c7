"""Text classification: a label for each text, such as the sentiment of a review."""

from __future__ import annotations

from pipeline.recipes.kinds.classification import Classification
from pipeline.recipes.kinds.inputs import SingleText


class TextClassification(Classification, SingleText):
    """Labels of single texts."""
