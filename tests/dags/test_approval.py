"""Approval: what a person is shown; `tests/e2e` has people who answer."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.releases import Check, Decision
from pipeline.settings import ROOT

CHECK = Check(kind="floor", name="accuracy on the test file", value=0.8571, bound=0.84, passed=True)


@pytest.fixture
def approval(airflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))
    return importlib.import_module("approval")


def decision(champion: str | None, *checks: Check) -> Decision:
    return Decision(
        promote=True, reason="Promoted: all is well.", champion=champion, best=None, notes=(), checks=(CHECK, *checks)
    )


def test_it_shows_what_was_checked_and_where_the_report_is(approval: ModuleType) -> None:
    text = approval.approval_text(decision(None), "http://127.0.0.1:8080/saebyeok/report.html")
    assert "- accuracy on the test file: **0.8571** (at least 0.84)" in text
    assert "(http://127.0.0.1:8080/saebyeok/report.html)" in text
    assert "All is well." in text
    assert "no champion yet" in text
    assert "no champion yet" not in approval.approval_text(decision("release/nsmc/a/b"), "")


def test_silence_is_a_no_before_the_next_night(approval: ModuleType) -> None:
    task = approval.Approval(task_id="approve", recipe="nsmc", decided="decide/nsmc/a/b")
    assert task.defaults == ["Reject"]
    assert task.execution_timeout is None
    assert task.response_timeout is not None
    assert task.response_timeout.total_seconds() < 20 * 3600


def test_the_champions_own_model_has_nothing_to_be_asked() -> None:
    compared = CHECK.model_copy(update={"kind": "comparison"})
    assert decision("release/nsmc/a/b").is_champion
    assert not decision("release/nsmc/a/b", compared).is_champion
    assert not decision(None).is_champion
