"""Output of `up` during a run."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest

from pipeline.stack.commands import in_brief, run_to_follow
from pipeline.stack.lifecycle import DAG, DAGS
from pipeline.stack.run_report import is_sample
from pipeline.stack.terminal import Progress
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import Decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import ValidationFigures
from tests.support.airflow_server import AirflowState, airflow_server
from tests.support.made_figures import evaluation, threshold


def made(store: Store, kind: str, figures: dict[str, Any], file: str = "") -> Artifact:
    with store.draft() as draft:
        (draft / "decision.json").write_text(file)
        return store.publish(draft, kind, "nsmc", "0" * 16, run="r", inputs={}, fields={}, figures=figures)


@pytest.mark.parametrize(
    ("stage", "figures", "run", "text"),
    [
        ("train", {}, "r", ""),
        ("train", {}, "later", "reused from the store"),
        (
            "evaluate",
            evaluation({"accuracy": 0.91234, "f1": 0.9}).document(),
            "r",
            "accuracy 0.9123, f1 0.9000",
        ),
    ],
)
def test_stage_in_brief_names_the_sample(
    stage: str, figures: dict[str, Any], run: str, text: str, store: Store
) -> None:
    artifact = made(store, stage, figures)
    assert in_brief(stage, artifact, run, sample=False) == text
    assert in_brief(stage, artifact, run, sample=True) == f"{text}{', ' if text else ''}on sample data"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9, "promoted"), (0.7, "REFUSED: Refused: accuracy on the test file is 0.7000, below 0.8.")],
)
def test_decision_in_brief_says_why_it_refuses(value: float, text: str, store: Store) -> None:
    check = threshold(value, 0.8)
    decision = Decision(promote=check.passed, champion=None, best=None, notes=(), checks=(check,))
    artifact = made(store, "decide", {}, decision.model_dump_json())
    assert in_brief("decide", artifact, "r", sample=False) == text


def test_validated_data_says_whether_it_is_sample(store: Store) -> None:
    for sample in (True, False):
        figures = ValidationFigures(train_rows=1, test_rows=1, sample=sample)
        assert is_sample(made(store, "validate", figures.document())) == sample
    assert not is_sample(None)


def deployed(store: Store) -> None:
    release = made(store, "release", {})
    DeploymentLog(store).append({"nsmc": release.ref}, after=0, run="r", reason="first")


def followed(store: Store, state: AirflowState, *, run: bool | None) -> str | None:
    with airflow_server(state) as api:
        return run_to_follow(api, store, Progress(StringIO()), run=run)


def test_up_of_empty_store_runs_and_switches_schedules_on(store: Store) -> None:
    state = AirflowState(paused={DAG, "retention", "rollback"})
    assert followed(store, state, run=None) == "new"
    assert state == AirflowState(paused={"rollback"}, runs=["new"])


@pytest.mark.parametrize("paused", [set(), {DAG}, set(DAGS)])
def test_later_up_leaves_model_and_dags_alone(paused: set[str], store: Store) -> None:
    deployed(store)
    state = AirflowState(paused=set(paused))
    assert followed(store, state, run=None) is None
    assert state == AirflowState(paused=paused)


def test_up_without_live_model_runs_unless_the_dag_is_paused(store: Store) -> None:
    made(store, "validate", {})
    assert followed(store, AirflowState(), run=None) == "new"
    state = AirflowState(paused={DAG})
    assert followed(store, state, run=None) is None
    assert state == AirflowState(paused={DAG})


def test_up_follows_the_run_in_progress(store: Store) -> None:
    deployed(store)
    for run in (None, True):
        state = AirflowState(runs=["old"])
        assert followed(store, state, run=run) == "old"
        assert state.runs == ["old"]


def test_up_with_run_unpauses_only_what_it_runs(store: Store) -> None:
    deployed(store)
    state = AirflowState(paused={DAG, "retention"})
    assert followed(store, state, run=True) == "new"
    assert state == AirflowState(paused={"retention"}, runs=["new"])


def test_up_with_no_run_changes_nothing_in_an_empty_store(store: Store) -> None:
    state = AirflowState(paused={DAG, "retention"})
    assert followed(store, state, run=False) is None
    assert state == AirflowState(paused={DAG, "retention"})
