"""Output of `status`: live models, runs, approvals and disk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest

from pipeline.errors import FAILED
from pipeline.settings import Settings
from pipeline.stack.lifecycle import DAG
from pipeline.stack.status import disk_lines, run_lines, served_lines, status, waiting_lines
from pipeline.store.artifacts import Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.verdicts import change_hold, record_verdict
from tests.support.airflow_server import AirflowState, airflow_server
from tests.support.tiny_releases import make_trained

NEXT = "the next run starts at 2026-12-01 03:00 Asia/Seoul"


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        (AirflowState(), [f"nightly_retrain: {NEXT}", f"retention: {NEXT}"]),
        (
            AirflowState(runs=["manual__1", "manual__2"]),
            [
                "nightly_retrain: manual__1 is running",
                "nightly_retrain: manual__2 is running",
                f"nightly_retrain: {NEXT}",
                f"retention: {NEXT}",
            ],
        ),
        (
            AirflowState(paused={DAG}),
            [
                "nightly_retrain: paused, no run starts; unpause it at URL/dags/nightly_retrain",
                f"retention: {NEXT}",
            ],
        ),
    ],
)
def test_runs_in_progress_and_next_runs_are_listed(state: AirflowState, lines: list[str]) -> None:
    with airflow_server(state) as api:
        assert [line.replace(api.url, "URL") for line in run_lines(api, "Asia/Seoul")] == lines


def test_live_release_is_listed_with_its_first_deployment(store: Store) -> None:
    assert list(served_lines(store)) == ["nothing is deployed yet"]
    log = DeploymentLog(store)
    log.append({"nsmc": "release/nsmc/a/1"}, after=0, run="r", reason="first")
    since = log.append({"nsmc": "release/nsmc/b/1"}, after=1, run="r", reason="second")
    log.append({"nsmc": "release/nsmc/b/1", "klue-sts": "release/klue-sts/c/1"}, after=2, run="r", reason="third")
    change_hold(store, "nsmc", held=True, by="kim", why="labels are checked")
    _, nsmc, hold = served_lines(store)
    assert nsmc == f"nsmc: release/nsmc/b/1 is live since {since.created:%Y-%m-%d %H:%M} UTC (deployment 2, promotion)"
    assert hold.startswith("promotion of nsmc is on hold since ")
    assert hold.endswith("by kim (labels are checked); to resume: saebyeok release nsmc")


def test_waiting_approval_is_listed_with_deadline_and_link(settings: Settings, store: Store) -> None:
    assert list(waiting_lines(store)) == []
    deadline = datetime.now(UTC) + timedelta(hours=1)
    model = make_trained(store)
    record_verdict(model, "asked", by=None, run="r", deadline=deadline, link="http://airflow/required_actions")
    assert list(waiting_lines(store)) == [
        f"nsmc: a new model waits for approval until {deadline:%Y-%m-%d %H:%M} UTC; answer at "
        "http://airflow/required_actions"
    ]
    record_verdict(model, "approved", by="kim", run="r")
    assert list(waiting_lines(store)) == []


def test_unreadable_approvals_do_not_hide_the_rest(settings: Settings, store: Store) -> None:
    store.create("verdicts/nsmc/abc/20261129T120000000000-0000.json", b"{")
    out = StringIO()
    assert status(settings, out) == FAILED
    first, *_, unknown, disk = out.getvalue().splitlines()
    assert first == "no stack was started with this SAEBYEOK_HOME; start one: make up"
    assert unknown.startswith("unknown: ")
    assert [disk] == list(disk_lines(settings))
