"""Classification: the answer is a probability for each label."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.recipes.kinds.numerals import numeral, spellings
from pipeline.recipes.kinds.task_kind import AnswerFields, ReportWords, TaskKind

#: Numbers that writers write for these names.
TRUTH = {"false": 0, "true": 1}
#: A number in a name.
DIGITS = re.compile(r"\d+(?:\.\d+)?")


def label_values(labels: Sequence[str]) -> dict[str, int]:
    """Map each valid spelling of a class in a data file to the number of the class.

    A class is spelled by its name or by its number (`_numbers`). A number may have either of the spellings in which
    writers write it: `2.0` is also `2`, and a column of numbers with an empty cell has `1.0` for 1.
    """
    names = {name: number for number, name in enumerate(labels)}
    written = {number: int(number) for number in _numbers(labels)} | names
    return {spelling: number for name, number in written.items() for spelling in (name, *spellings(name))}


def _numbers(labels: Sequence[str]) -> list[str]:
    """Return the numbers of the classes; none if a number could mean another class.

    That is so if a name is a number, if a number is the truth value of another name, as in (`true`, `false`), or if
    another name contains it, as in (`1 star`, `2 stars`).
    """
    numbers = range(len(labels))
    meant = [{number, *_numbers_in(name)}.intersection(numbers) for number, name in enumerate(labels)]
    clear = all(found == {number} for number, found in enumerate(meant))
    return [] if not clear or any(numeral(name) is not None for name in labels) else list(map(str, numbers))


def _numbers_in(name: str) -> list[float]:
    """Return the numbers that a name contains, and the number that writers write for it."""
    truth = [TRUTH[name.casefold()]] if name.casefold() in TRUTH else []
    return [*truth, *map(float, DIGITS.findall(name))]


class Classification(TaskKind):
    """A kind that assigns one of several labels."""

    kind = "classification"
    route = "/classify"
    metric_names = MappingProxyType({"accuracy": "accuracy", "f1": "F1"})
    answers = "probabilities"
    label_type = "int64"
    expectations = MappingProxyType(
        {
            "minimum": frozenset({"label"}),
            "invariance": frozenset(),
            "direction": frozenset({"by", "label"}),
        }
    )

    words = ReportWords(
        plot="Confusion matrix",
        plot_content="Confusion matrix",
        mistakes="Most confident mistakes",
        watched="the probability of the tested label",
    )

    def check(self, fields: AnswerFields) -> None:
        """Raise ValueError unless there are at least two labels."""
        if len(fields.labels) < 2:
            raise ValueError("a classification recipe needs at least two `labels`")

    def answer_range(self, fields: AnswerFields) -> tuple[float, float]:
        """Return the range of a probability."""
        return 0.0, 1.0

    def label_rule(self, fields: AnswerFields) -> str:
        """Return the names and numbers of the labels."""
        return f"one of {', '.join([*_numbers(fields.labels), *fields.labels])}"

    def label_number(self, fields: AnswerFields, label: str) -> float:
        """Return the class number of a spelling of a label; NaN if no label is spelled like this."""
        return label_values(fields.labels).get(label, math.nan)

    def is_valid(self, fields: AnswerFields, number: float) -> bool:
        """Return whether `number` is that of a label; `label_number` returns NaN for anything else."""
        return not math.isnan(number)

    def suite_parameters(self, fields: AnswerFields) -> dict[str, Any]:
        """Return the valid spellings as `labels`."""
        return {"labels": list(label_values(fields.labels))}

    def result(self, fields: AnswerFields, answer: Sequence[float]) -> dict[str, Any]:
        """Return `label` (the most probable one), `score` (its probability) and `probabilities` by label."""
        score = max(answer)
        probabilities = dict(zip(fields.labels, answer, strict=True))
        return {"label": fields.labels[answer.index(score)], "score": score, "probabilities": probabilities}

    def answer(self, fields: AnswerFields, result: Mapping[str, Any]) -> list[float]:
        """Return the probabilities in the order of the labels."""
        return [result["probabilities"][label] for label in fields.labels]
