"""Regression: the answer is a number in the recipe's score range."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.recipes.kinds.numerals import numeral
from pipeline.recipes.kinds.task_kind import AnswerFields, ReportWords, TaskKind


def positive_at(fields: AnswerFields) -> float:
    """Return the lowest score that counts as positive."""
    assert fields.similar_at is not None  # the recipe's own rule
    return fields.similar_at


class Regression(TaskKind):
    """A kind that assigns a score."""

    kind = "regression"
    metric_names = MappingProxyType({"pearson": "Pearson r", "f1": "F1"})
    answers = "score"
    label_type = "float64"
    expectations = MappingProxyType(
        {
            "minimum": frozenset({"score"}),
            "invariance": frozenset({"within"}),
            "direction": frozenset({"by"}),
        }
    )

    words = ReportWords(
        plot="Predicted against labelled scores",
        plot_content="Scatter of predicted against labelled scores",
        mistakes="Largest score errors",
        watched="the model's score",
    )

    def check(self, fields: AnswerFields) -> None:
        """Raise ValueError unless there are a score range and a threshold for positive scores."""
        if fields.score_range is None or fields.similar_at is None:
            raise ValueError("a regression recipe needs `score_range` and `similar_at`")

    def answer_range(self, fields: AnswerFields) -> tuple[float, float]:
        """Return the score range."""
        assert fields.score_range is not None  # the recipe's own rule
        return fields.score_range

    def label_rule(self, fields: AnswerFields) -> str:
        """Return the valid range."""
        return "a number from {:g} to {:g}".format(*self.answer_range(fields))

    def label_number(self, fields: AnswerFields, label: str) -> float:
        """Return the number that a label spells; NaN if it spells none."""
        number = numeral(label.strip(string.whitespace))
        return math.nan if number is None else number

    def is_valid(self, fields: AnswerFields, number: float) -> bool:
        """Return whether the number is in the score range."""
        low, high = self.answer_range(fields)
        return low <= number <= high

    def suite_parameters(self, fields: AnswerFields) -> dict[str, Any]:
        """Return the range as `score_low` and `score_high`."""
        return dict(zip(("score_low", "score_high"), self.answer_range(fields), strict=True))

    def result(self, fields: AnswerFields, answer: Sequence[float]) -> dict[str, Any]:
        """Return the `score`."""
        (score,) = answer
        return {"score": score}

    def answer(self, fields: AnswerFields, result: Mapping[str, Any]) -> list[float]:
        """Return the score alone."""
        return [result["score"]]
