"""Which answers pass which kind of behavioural test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.recipes.behaviour import BehaviourTest
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.registry import task_of

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")


def a_test(kind: str, **fields: Any) -> BehaviourTest:
    told: dict[str, Any] = {"capability": "x", "name": "y", "kind": kind, "cases": ["가"]}
    return BehaviourTest.model_validate(told | fields)


def chances(*cases: tuple[float, ...]) -> Any:
    """Return the answers of cases from the probabilities of `positive`."""
    return np.array([[[1 - positive, positive] for positive in case] for case in cases])


def scores(*cases: tuple[float, ...]) -> Any:
    return np.array(cases)


@pytest.mark.parametrize(
    ("fields", "answers", "wanted"),
    [
        ({"kind": "minimum", "label": "positive"}, chances((0.9,), (0.2,), (0.51,)), [True, False, True]),
        ({"kind": "minimum", "label": "negative"}, chances((0.9,), (0.2,), (0.51,)), [False, True, False]),
        # Only another label counts as a change, however much the probability moves.
        ({"kind": "invariance"}, chances((0.9, 0.55), (0.55, 0.45), (0.1, 0.49)), [True, False, True]),
        ({"kind": "direction", "label": "positive", "by": 0.2}, chances((0.5, 0.75), (0.5, 0.6)), [True, False]),
        ({"kind": "direction", "label": "positive", "by": -0.2}, chances((0.75, 0.5), (0.5, 0.75)), [True, False]),
        ({"kind": "direction", "label": "negative", "by": 0.2}, chances((0.75, 0.5), (0.5, 0.75)), [True, False]),
    ],
)
def test_probabilities_pass_by_kind(fields: dict[str, Any], answers: Any, wanted: list[bool]) -> None:
    assert task_of(REVIEWS).passes(a_test(**fields), answers).tolist() == wanted


@pytest.mark.parametrize(
    ("fields", "answers", "wanted"),
    [
        # Both ends are inclusive.
        (
            {"kind": "minimum", "score": [1.0, 2.0]},
            scores((1.0,), (2.0,), (0.99,), (2.01,)),
            [True, True, False, False],
        ),
        ({"kind": "invariance", "within": 0.5}, scores((3.0, 3.5), (3.5, 3.0), (3.0, 3.75)), [True, True, False]),
        ({"kind": "direction", "by": 0.5}, scores((3.0, 3.5), (3.0, 3.25), (3.5, 3.0)), [True, False, False]),
        ({"kind": "direction", "by": -0.5}, scores((5.0, 4.5), (5.0, 4.75), (4.5, 5.0)), [True, False, False]),
    ],
)
def test_scores_pass_by_kind(fields: dict[str, Any], answers: Any, wanted: list[bool]) -> None:
    assert task_of(PAIRS).passes(a_test(**fields), answers).tolist() == wanted


def test_an_answer_that_is_no_number_passes_nothing() -> None:
    nothing = scores((np.nan, np.nan))
    for fields in (
        {"kind": "minimum", "score": [0.0, 5.0]},
        {"kind": "invariance", "within": 5.0},
        {"kind": "direction", "by": -0.1},
    ):
        assert not task_of(PAIRS).passes(a_test(**fields), nothing).any()
