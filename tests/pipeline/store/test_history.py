"""The list of past runs."""

from __future__ import annotations

import io

from pipeline.cli.console import Session
from pipeline.cli.output import print_runs
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import Check
from pipeline.store.decisions import Decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.history import past_runs
from tests.support.made_figures import comparison, threshold

PASSED, FAILED = threshold(0.85, 0.8), comparison(-0.05, 0.02)


def decided(store: Store, recipe: str, run: str, *checks: Check) -> Artifact:
    """Publish a decision of `run`."""
    promote = all(check.passed for check in checks)
    decision = Decision(promote=promote, champion=None, best=None, notes=(), checks=checks)
    with store.draft() as draft:
        (draft / "decision.json").write_text(decision.model_dump_json())
        figures = {"promote": promote, "reason": decision.reason}
        key = f"{len(store.refs('decide', recipe)):016x}"
        return store.publish(draft, "decide", recipe, key, run=run, inputs={}, fields={}, figures=figures)


def rejected(store: Store, run: str) -> Artifact:
    """Publish data docs of data that were rejected."""
    with store.draft() as draft:
        figures = {"reasons": ["3 rows break a rule"]}
        return store.publish(draft, "rejected-data", "nsmc", "e" * 16, run=run, inputs={}, fields={}, figures=figures)


def test_runs_are_listed_with_outcome_and_deployment(store: Store) -> None:
    first = decided(store, "nsmc", "run-1", PASSED)
    decided(store, "klue-sts", "run-1", PASSED)
    DeploymentLog(store).append({"nsmc": "release/nsmc/a/1"}, after=0, run="run-1", reason="first")
    decided(store, "nsmc", "run-2", PASSED, FAILED)
    docs = rejected(store, "run-3")
    # A rollback has the run of the person who asked for it, not of a training.
    DeploymentLog(store).append(
        {"nsmc": "release/nsmc/b/1"}, after=1, run="run-2", reason="rollback", intent="rollback", of=1
    )
    found = past_runs(store, None, 10)
    assert [(item.run, item.recipe, item.outcome, item.deployment) for item in found] == [
        ("run-3", "nsmc", "data rejected", None),
        ("run-2", "nsmc", "refused", None),
        ("run-1", "klue-sts", "approved by the gate", None),
        ("run-1", "nsmc", "deployed", 1),
    ]
    assert found[0].reason == "3 rows break a rule"
    assert found[0].page == f"{docs.uri}/docs/index.html"
    assert found[3].page == f"{first.uri}/report.html"
    assert [item.run for item in past_runs(store, "klue-sts", 10)] == ["run-1"]
    assert [item.run for item in past_runs(store, None, 2)] == ["run-3", "run-2"]


def test_damaged_decision_is_named_and_hides_no_other(store: Store) -> None:
    decided(store, "nsmc", "run-1", PASSED)
    damaged = decided(store, "nsmc", "run-2", PASSED)
    (damaged.path / "decision.json").write_text("{")
    newest, before = past_runs(store, None, 10)
    assert (newest.outcome, before.outcome) == ("unreadable", "approved by the gate")
    assert "decision.json" in newest.reason


def test_runs_are_printed(store: Store, settings: Settings) -> None:
    artifact = decided(store, "nsmc", "run-1", PASSED)
    DeploymentLog(store).append({"nsmc": "release/nsmc/a/1"}, after=0, run="run-1", reason="first")
    out = io.StringIO()
    print_runs(Session(settings, out, as_json=False), past_runs(store, None, 10))
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("nsmc: deployed as deployment 1")
    assert lines[-1].endswith(f"report  {artifact.uri}/report.html")
