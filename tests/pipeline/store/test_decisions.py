"""Decisions about a model."""

from __future__ import annotations

import math

import pytest

from pipeline.errors import ArtifactError
from pipeline.store.artifacts import Store
from pipeline.store.decisions import Check, Decision, Estimate, decision_lines, read_decision
from tests.support.strict import check_strict


def decision(*, promote: bool = True, champion: str | None = None, kind: str = "floor") -> Decision:
    check = {"kind": kind, "name": "accuracy", "value": 0.9, "bound": 0.8, "passed": promote}
    reason = f"{'Promoted' if promote else 'Refused'}: it is so"
    return Decision.model_validate(
        {"promote": promote, "reason": reason, "champion": champion, "best": None, "notes": (), "checks": (check,)}
    )


def test_records_are_strict() -> None:
    check_strict(Estimate(value=0.1, low=0.0, high=0.2))
    check_strict(decision())
    check_strict(decision().checks[0])


def test_check_without_estimate_and_miss_is_valid() -> None:
    check = Check(kind="floor", name="accuracy", value=0.9, bound=0.8, passed=True)
    assert (check.estimate, check.miss) == (None, None)


def test_decision_lines_list_every_check() -> None:
    judged = Decision.model_validate(
        {**decision(promote=False).model_dump(), "notes": ["seen"], "checks": [
            {"kind": "floor", "name": "accuracy", "value": 0.91236, "bound": 0.8, "passed": True},
            {"kind": "floor", "name": "r", "value": 0.1, "bound": 0.25, "passed": False},
        ]}
    )  # fmt: skip
    assert list(decision_lines(judged)) == [
        "passed      accuracy: 0.9124 against 0.8000",
        "FAILED      r: 0.1000 against 0.2500",
        "note        seen",
    ]


def test_a_decision_is_the_champions_own_without_comparison() -> None:
    assert decision(champion="release/nsmc/k/1").is_champion
    assert not decision(champion="release/nsmc/k/1", kind="comparison").is_champion
    assert not decision().is_champion, "without a champion there is nothing to compare either"


def test_decision_with_one_comparison_was_compared() -> None:
    compared = decision(champion="release/nsmc/k/1", kind="comparison")
    both = compared.model_copy(update={"checks": (*compared.checks, *decision().checks)})
    assert not both.is_champion


def test_reason_is_shown_without_its_verdict() -> None:
    assert decision().why == decision(promote=False).why == "It is so"


def test_nan_figure_survives_serialisation(store: Store) -> None:
    check = {"kind": "floor", "name": "r", "value": float("nan"), "bound": 0.8, "passed": False}
    estimate = {"value": float("inf"), "low": float("-inf"), "high": float("nan")}
    judged = Decision.model_validate(decision().model_dump() | {"checks": [check | {"estimate": estimate}]})
    with store.draft() as draft:
        (draft / "decision.json").write_text(judged.model_dump_json())
        made = store.publish(draft, "decide", "nsmc", "k", run="r", inputs={}, fields={}, figures={})
    (read,) = read_decision(made).checks
    assert read.estimate is not None
    assert math.isnan(read.value)
    assert (read.estimate.value, read.estimate.low) == (math.inf, -math.inf)


@pytest.mark.parametrize("content", [b"", b"{", b'{"promote": true}'])
def test_damaged_decision_raises(store: Store, content: bytes) -> None:
    with store.draft() as draft:
        (draft / "decision.json").write_bytes(content)
        made = store.publish(draft, "decide", "nsmc", "k", run="r", inputs={}, fields={}, figures={})
    with pytest.raises(ArtifactError, match=rf"{made.uri}: decision\.json is missing or damaged"):
        read_decision(made)
