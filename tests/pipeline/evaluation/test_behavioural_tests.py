"""The checklist: which answers pass which kind of test, and the report of failures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.behavioural_tests import run_checklist
from pipeline.metrics.intervals import share_interval
from pipeline.recipes.behaviour import Behaviour
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.tasks.trained import Trained, load_trained
from tests.support.small_pipeline import Road

pytestmark = pytest.mark.torch

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")


@dataclass(frozen=True)
class Scripted:
    """A model with given answers: text (or joined texts) to the probability of positive, or a score."""

    answers: dict[str, float]
    classifies: bool

    def answer(self, rows: pd.DataFrame) -> Any:
        found = np.array([self.answers["|".join(row)] for row in rows.itertuples(index=False, name=None)])
        return np.stack([1 - found, found], axis=1) if self.classifies else found


def run(recipe: Recipe, tests: list[dict[str, Any]], answers: dict[str, float], **words: list[str]) -> Any:
    behaviour = Behaviour.model_validate({"words": words, "tests": tests})
    model = cast(Trained, Scripted(answers, recipe.kind == "classification"))
    return run_checklist(recipe.model_copy(update={"behaviour": behaviour}), model)


PRAISE = {"capability": "negation", "name": "denied", "kind": "minimum", "label": "negative", "cases": ["{a} 안 좋다"]}
LOWER = {"capability": "negation", "name": "lower", "kind": "direction", "label": "positive", "by": -0.2}
NAMES = {"capability": "names", "name": "actors", "kind": "invariance"}
TESTS: list[dict[str, Any]] = [
    PRAISE,
    NAMES | {"cases": [["민수 좋다", "서연 좋다"]]},
    LOWER | {"cases": [["좋다", "안 좋다"], ["최고다", "최고가 아니다"]]},
]
ANSWERS = {
    "연기 안 좋다": 0.2,
    "음악 안 좋다": 0.7,
    "민수 좋다": 0.9,
    "서연 좋다": 0.4,
    "좋다": 0.8,
    "안 좋다": 0.5,
    "최고다": 0.9,
    "최고가 아니다": 0.875,
}


def test_figures_sum_cases_over_tests_of_a_capability() -> None:
    found = run(REVIEWS, TESTS, ANSWERS, a=["연기", "음악"])
    assert found.figures == {
        "negation": {
            "rate": share_interval(2, 4),
            "cases": 4,
            "passed": 2,
            "tests": [
                {"name": "denied", "kind": "minimum", "cases": 2, "passed": 1},
                {"name": "lower", "kind": "direction", "cases": 2, "passed": 1},
            ],
        },
        "names": {
            "rate": share_interval(0, 1),
            "cases": 1,
            "passed": 0,
            "tests": [{"name": "actors", "kind": "invariance", "cases": 1, "passed": 0}],
        },
    }


def test_a_failure_tells_what_was_asked_and_what_came() -> None:
    failures = {item["test"]: item for item in run(REVIEWS, TESTS, ANSWERS, a=["연기", "음악"]).failures}
    assert failures["denied"] == {
        "capability": "negation",
        "test": "denied",
        "kind": "minimum",
        "asked": [["음악 안 좋다"]],
        # The probability of the tested label, negative.
        "answers": [0.3],
    }
    assert (failures["lower"]["asked"], failures["lower"]["answers"]) == ([["최고다"], ["최고가 아니다"]], [0.9, 0.875])
    # Without a tested label: the probability of the label predicted first.
    assert failures["actors"]["answers"] == [0.9, 0.4]
    assert len(failures) == 3


def test_pairs_are_asked_as_pairs() -> None:
    tests = [
        {"capability": "identity", "name": "same", "kind": "minimum", "score": [4.0, 5.0], "cases": [["{s}", "{s}"]]},
        {"capability": "numbers", "name": "other", "kind": "direction", "by": -0.5}
        | {"cases": [[["세 시", "세 시"], ["세 시", "네 시"]]]},
    ]
    answers = {"비|비": 4.5, "눈|눈": 3.5, "세 시|세 시": 5.0, "세 시|네 시": 4.75}
    found = run(PAIRS, tests, answers, s=["비", "눈"])
    assert {name: (item["passed"], item["cases"]) for name, item in found.figures.items()} == {
        "identity": (1, 2),
        "numbers": (0, 1),
    }
    assert [item["asked"] for item in found.failures] == [[["눈", "눈"]], [["세 시", "세 시"], ["세 시", "네 시"]]]
    assert [item["answers"] for item in found.failures] == [[3.5], [5.0, 4.75]]


def test_nothing_asked_is_nothing_found() -> None:
    found = run(REVIEWS, [], {})
    assert (found.figures, found.failures) == ({}, [])


@pytest.mark.parametrize("name", ["reviews", "pairs"])
def test_a_real_model_is_asked_every_case_that_ships(name: str, request: pytest.FixtureRequest) -> None:
    road: Road = request.getfixturevalue(name)
    found = run_checklist(road.recipe, load_trained(road.recipe, road.trained))
    behaviour = road.recipe.behaviour
    cases = sum(len(behaviour.questions(test)) for test in behaviour.tests)
    assert sum(item["cases"] for item in found.figures.values()) == cases
    assert sum(item["passed"] for item in found.figures.values()) == cases - len(found.failures)
    # As stored by evaluate.
    stored = json.loads((road.evaluated.path / "behaviour.json").read_text(encoding="utf-8"))
    assert stored == found.failures
    assert road.evaluated.manifest.figures["behaviour"] == found.figures
