"""Behavioural tests (CheckList): run a recipe's test cases on a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.metrics.arrays import Numbers
from pipeline.metrics.intervals import share_interval
from pipeline.recipes.behaviour import BehaviourTest, Question
from pipeline.recipes.schema import Recipe
from pipeline.tasks.registry import task_of
from pipeline.tasks.trained import Trained


@dataclass(frozen=True)
class Checklist:
    """Results of the behavioural tests: `figures` per capability, and every failed case."""

    figures: dict[str, dict[str, Any]]
    failures: list[dict[str, Any]]


def run_checklist(recipe: Recipe, model: Trained) -> Checklist:
    """Run every case of the recipe's behavioural tests on `model`.

    Figures per capability: `rate` with `value`, `low` and `high` (Wilson, 95%), `cases`, `passed`, and the same counts
    for each of its `tests`. Each failure: `capability`, `test`, `kind`, `asked` (inputs) and `answers` (probabilities
    of the tested label, or scores).
    """
    questions = {test: recipe.behaviour.questions(test) for test in recipe.behaviour.tests}
    asked = [text for cases in questions.values() for question in cases for text in question]
    if not asked:
        return Checklist({}, [])
    answers = model.answer(pd.DataFrame(asked, columns=recipe.text_columns))
    found, start = {}, 0
    for test, cases in questions.items():
        count = sum(map(len, cases))
        # (cases, inputs per case), plus (labels,) for a classification.
        given = answers[start : start + count].reshape(len(cases), -1, *answers.shape[1:])
        found[test] = given
        start += count
    task = task_of(recipe)
    results = {test: task.passes(test, given) for test, given in found.items()}
    failures = [
        _failure(recipe, test, questions[test][place], found[test][place])
        for test, passed in results.items()
        for place in np.flatnonzero(~passed)
    ]
    return Checklist(_figures(recipe, results), failures)


def _figures(recipe: Recipe, results: dict[BehaviourTest, Numbers]) -> dict[str, dict[str, Any]]:
    figures = {}
    for capability in recipe.behaviour.capabilities:
        tests = {test: passed for test, passed in results.items() if test.capability == capability}
        cases, passed = sum(map(len, tests.values())), sum(int(item.sum()) for item in tests.values())
        figures[capability] = {
            "rate": share_interval(passed, cases),
            "cases": cases,
            "passed": passed,
            "tests": [
                {"name": test.name, "kind": test.kind, "cases": len(item), "passed": int(item.sum())}
                for test, item in tests.items()
            ],
        }
    return figures


def _failure(recipe: Recipe, test: BehaviourTest, question: Question, answers: Numbers) -> dict[str, Any]:
    values = task_of(recipe).watched(test, answers[None])[0]
    return {
        "capability": test.capability,
        "test": test.name,
        "kind": test.kind,
        "asked": [list(item) for item in question],
        "answers": [round(float(value), 4) for value in np.atleast_1d(values)],
    }
