"""The line that maps the cosine or distance of two vectors to a score."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ScoreLine(BaseModel):
    """Linear map from a cosine or distance to a score, `slope * value + intercept`, clipped to the score range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float
    intercept: float
