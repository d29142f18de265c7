"""Decisions about a model."""

from __future__ import annotations

import json
import math

import pytest

from pipeline.errors import ArtifactError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import check_document
from pipeline.store.decisions import Decision, Score, decision_lines, read_decision
from pipeline.store.figures import Estimate
from tests.support.made_figures import comparison, threshold
from tests.support.strict import check_strict


def decision(*, promote: bool = True, champion: str | None = None, compared: bool = False) -> Decision:
    checks = (threshold(0.9, 0.8 if promote else 0.95), *([comparison(0.125, 0.01)] if compared else []))
    return Decision(promote=promote, champion=champion, best=None, notes=(), checks=checks)


def published(store: Store, content: bytes) -> Artifact:
    """Return a decide artifact with this `decision.json`."""
    with store.draft() as draft:
        (draft / "decision.json").write_bytes(content)
        return store.publish(draft, "decide", "nsmc", "k", run="r", inputs={}, fields={}, figures={})


SCORE = Score(model="champion", ref="release/nsmc/k/1", value=math.nan, held_out=0.1)


def test_records_are_strict() -> None:
    check_strict(decision())
    check_strict(SCORE)


def test_score_without_a_value_is_read_back(store: Store) -> None:
    written = decision().model_copy(update={"scores": (SCORE,)})
    (read,) = read_decision(published(store, written.model_dump_json().encode())).scores
    assert (read.model, read.ref, read.held_out) == ("champion", "release/nsmc/k/1", 0.1)
    assert math.isnan(read.value)
    assert "NaN" in SCORE.model_dump_json()


def test_only_waivable_failures_need_a_person() -> None:
    few = comparison(-0.0625, 0.01).model_copy(update={"rows": 29, "passed": False})
    reached, missed = threshold(0.9, 0.8), threshold(0.7, 0.8)
    expected = {(reached,): False, (reached, few): True, (few, few): True, (few, missed): False, (missed, few): False}
    for checks, needs in expected.items():
        assert decision().model_copy(update={"checks": checks}).needs_person == needs


def test_decision_is_read_as_it_was_written(store: Store) -> None:
    written = decision(champion="release/nsmc/k/1", compared=True).model_copy(update={"notes": ("One was lost",)})
    document = json.loads(written.model_dump_json())
    assert list(document) == ["format", "promote", "champion", "best", "notes", "checks", "scores"], (
        "no sentence about the checks"
    )
    assert document["format"] == 5
    assert read_decision(published(store, written.model_dump_json().encode())) == written


def test_decision_lines_list_every_check() -> None:
    judged = Decision(
        promote=False,
        champion=None,
        best=None,
        notes=("seen",),
        checks=(threshold(0.91236, 0.8), threshold(0.1, 0.25)),
    )
    assert list(decision_lines(judged)) == [
        "passed      accuracy on the test file: 0.9124 against 0.8000",
        "FAILED      accuracy on the test file: 0.1000 against 0.2500",
        "note        seen",
    ]


def test_a_decision_is_the_champions_own_without_comparison() -> None:
    assert decision(champion="release/nsmc/k/1").is_champion
    assert not decision(champion="release/nsmc/k/1", compared=True).is_champion
    assert not decision().is_champion, "without a champion there is nothing to compare either"


def test_decision_with_one_comparison_was_compared() -> None:
    compared = decision(champion="release/nsmc/k/1", compared=True)
    both = compared.model_copy(update={"checks": (*compared.checks, *decision().checks)})
    assert not both.is_champion


def test_reason_is_shown_without_its_verdict() -> None:
    assert decision().reason.startswith("Promoted: accuracy on")
    assert decision().why == "Accuracy on the test file is 0.9000 (threshold 0.8); there is no champion yet."
    assert decision(promote=False).reason.startswith("Refused: accuracy on")
    assert decision(promote=False).why == "Accuracy on the test file is 0.9000, below 0.95."


def test_nan_figure_survives_serialisation(store: Store) -> None:
    estimate = Estimate(value=math.inf, low=-math.inf, high=math.nan)
    check = threshold(0.5, 0.8).model_copy(update={"value": math.nan, "estimate": estimate})
    judged = decision().model_copy(update={"checks": (check,)})
    (read,) = read_decision(published(store, judged.model_dump_json().encode())).checks
    assert read.estimate is not None
    assert math.isnan(read.value)
    assert (read.estimate.value, read.estimate.low) == (math.inf, -math.inf)


def test_decision_stored_with_sentences_is_shown_unchanged(store: Store) -> None:
    failed = {"kind": "comparison", "name": "it against them", "value": -1.0, "bound": 0.0, "passed": False}
    passed = {"kind": "floor", "name": "accuracy", "value": 0.9, "bound": 0.8, "passed": True}
    checks = [passed | {"estimate": None, "miss": None}, failed | {"estimate": None, "miss": "it is old"}]
    told = {"promote": False, "reason": "Refused: as it was.", "champion": "c", "best": None, "notes": ["a note"]}
    read = read_decision(published(store, json.dumps(told | {"checks": checks}).encode()))
    assert (read.reason, read.why, read.is_champion) == ("Refused: as it was.", "As it was.", False)
    assert [check_document(check) for check in read.checks] == [check | {"waivable": False} for check in checks]
    assert list(decision_lines(read))[1:] == [
        "FAILED      it against them: -1.0000 against 0.0000",
        "note        a note",
    ]


@pytest.mark.parametrize("content", [b"", b"{", b'{"promote": true}'])
def test_damaged_decision_raises(store: Store, content: bytes) -> None:
    made = published(store, content)
    with pytest.raises(ArtifactError, match=rf"{made.uri}: decision\.json is missing or damaged"):
        read_decision(made)
