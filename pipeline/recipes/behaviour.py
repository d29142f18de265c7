"""Behavioural tests of a recipe, written in TOML (CheckList: Ribeiro et al. 2020, "Beyond Accuracy")."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.recipes.kinds.task_kind import TaskKind
from pipeline.recipes.strict_model import Strict

#: One text or a pair. Each `{name}` in it is replaced by each of the words of that name in turn.
Input = str | Annotated[tuple[str, str], Field(strict=False)]
#: An input for `minimum`; for the other kinds, an input before and after a change.
Case = Input | Annotated[tuple[Input, Input], Field(strict=False)]
#: A case with its placeholders filled: the inputs for the model, each one text or a pair.
Question = tuple[tuple[str, ...], ...]

PLACEHOLDER = re.compile(r"\{(\w+)\}")
#: Maximum number of filled cases per test. More are a sign of a template mistake.
MOST_CASES = 200


class BehaviourTest(Strict):
    """A behavioural test: an expectation about the model's answers to some cases.

    `minimum`: the answer is `label`, or its score is in the range `score`. `invariance`: the change does not change the
    label, or changes the score by at most `within`. `direction`: the change moves the probability of `label`, or the
    score, by at least `by` (up if `by` is positive, down if negative).
    """

    capability: str = Field(min_length=1, description="name of the capability; `gate.behaviour` has its bound")
    name: str = Field(min_length=1, description="name of the test in reports")
    kind: Literal["minimum", "invariance", "direction"] = Field(description="form of the expectation")
    cases: tuple[Case, ...] = Field(
        min_length=1,
        strict=False,
        description="inputs (a text or a pair); for `invariance` and `direction`, an input before and after a change",
    )
    label: str | None = Field(default=None, description="expected label, or label whose probability moves")
    score: tuple[float, float] | None = Field(
        default=None, strict=False, description="lowest and highest expected score"
    )
    within: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="maximum change of the score in a test of invariance"
    )
    by: float | None = Field(default=None, description="minimum change: up if positive, down if negative")

    def check(self, task: TaskKind, labels: tuple[str, ...]) -> None:
        """Raise ValueError if the test does not fit a recipe of the kind `task` with `labels`."""
        wanted = task.expectations[self.kind]
        given = {name for name in ("label", "score", "within", "by") if getattr(self, name) is not None}
        if given != wanted:
            raise ValueError(
                f"{self.name!r}: a test of kind {self.kind} takes {', '.join(sorted(wanted)) or 'nothing more'}, "
                f"not {', '.join(sorted(given)) or 'nothing'}"
            )
        if self.label is not None and self.label not in labels:
            raise ValueError(f"{self.name!r}: `label` must be one of {', '.join(labels)}, not {self.label!r}")
        if self.by == 0:
            raise ValueError(f"{self.name!r}: `by` must be above 0 (up) or below 0 (down)")
        if self.score is not None and not self.score[0] < self.score[1]:
            raise ValueError(f"{self.name!r}: `score` must be [lowest, highest], not {list(self.score)}")
        for case in self.cases:
            question = self.question(case)
            width = len(task.texts)
            if len(question) != 1 + (self.kind != "minimum") or any(len(item) != width for item in question):
                form = "text" if width == 1 else "[text, text]"
                wanted_form = form if self.kind == "minimum" else f"[{form}, {form}]"
                raise ValueError(f"{self.name!r}: a case of kind {self.kind} is {wanted_form}, not {case!r}")

    def question(self, case: Case) -> Question:
        """Return the inputs of one case."""
        inputs = (case,) if self.kind == "minimum" or isinstance(case, str) else case
        return tuple((item,) if isinstance(item, str) else tuple(map(str, item)) for item in inputs)


class Behaviour(Strict):
    """`recipes/behaviour/<recipe>.toml`: tests, and the words that replace the placeholders in their cases."""

    words: dict[str, Annotated[tuple[str, ...], Field(min_length=1, strict=False)]] = Field(
        default={}, description="words by name; a case with `{name}` is tested with each of them"
    )
    tests: tuple[BehaviourTest, ...] = Field(default=(), strict=False, description="the tests")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Return the tested capabilities, in the order of the file."""
        return tuple(dict.fromkeys(test.capability for test in self.tests))

    @property
    def digest(self) -> str:
        """Return a digest of all tests, for a stage key."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def questions(self, test: BehaviourTest) -> list[Question]:
        """Return the cases of a test, with their placeholders filled in."""
        return [question for case in test.cases for question in self._filled(test.question(case))]

    def _filled(self, question: Question) -> Iterator[Question]:
        names = list(dict.fromkeys(PLACEHOLDER.findall("\n".join(text for item in question for text in item))))
        for values in product(*(self.words[name] for name in names)):
            words = dict(zip(names, values, strict=True))
            yield tuple(tuple(_fill(text, words) for text in item) for item in question)

    @model_validator(mode="after")
    def _cases_can_be_filled(self) -> Self:
        names = [test.name for test in self.tests]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tests have the name {name!r}; rename one")
        for test in self.tests:
            for name in PLACEHOLDER.findall(str(test.cases)):
                if name not in self.words:
                    known = ", ".join(self.words) or "none"
                    raise ValueError(f"{test.name!r}: no words for {{{name}}}; add them to [words], which has: {known}")
            count = len(self.questions(test))
            if count > MOST_CASES:
                raise ValueError(
                    f"{test.name!r} has {count} cases after its placeholders are filled, and at most {MOST_CASES} are "
                    "allowed; remove words or cases"
                )
        return self


def _fill(text: str, words: dict[str, str]) -> str:
    return PLACEHOLDER.sub(lambda hit: words[hit[1]], text)
