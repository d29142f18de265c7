"""Text regression: a score for each text, such as the stars of a review."""

from __future__ import annotations

from pipeline.recipes.kinds.inputs import SingleText
from pipeline.recipes.kinds.regression import Regression


class TextRegression(Regression, SingleText):
    """Scores of single texts."""

    route = "/score"
