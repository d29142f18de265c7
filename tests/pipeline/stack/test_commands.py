"""Output of `up` during a run."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.stack.commands import in_brief
from pipeline.stack.run_report import is_sample
from pipeline.store.artifacts import Artifact, Store


def made(store: Store, kind: str, figures: dict[str, Any]) -> Artifact:
    with store.draft() as draft:
        (draft / "file").write_text(kind)
        return store.publish(draft, kind, "nsmc", "0" * 16, run="r", inputs={}, fields={}, figures=figures)


@pytest.mark.parametrize(
    ("stage", "figures", "run", "text"),
    [
        ("train", {}, "r", ""),
        ("train", {}, "later", "reused from the store"),
        (
            "evaluate",
            {"test": {"accuracy": {"value": 0.91234}, "f1": {"value": 0.9}}},
            "r",
            "accuracy 0.9123, f1 0.9000",
        ),
        ("decide", {"promote": True, "reason": "x"}, "r", "promoted"),
        ("decide", {"promote": False, "reason": "too bad"}, "r", "REFUSED: too bad"),
    ],
)
def test_stage_in_brief_names_the_sample(
    stage: str, figures: dict[str, Any], run: str, text: str, store: Store
) -> None:
    artifact = made(store, stage, figures)
    assert in_brief(stage, artifact, run, sample=False) == text
    assert in_brief(stage, artifact, run, sample=True) == f"{text}{', ' if text else ''}on sample data"


def test_validated_data_says_whether_it_is_sample(store: Store) -> None:
    assert is_sample(made(store, "validate", {"sample": True}))
    assert not is_sample(made(store, "validate", {"sample": False}))
    assert not is_sample(None)
