"""Airflow errors, notes, links, and the deployment that made a release the champion."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import errors
from pipeline.errors import RejectedDataError, SaebyeokError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.running import CALLS
from pipeline.stages.stage import DECIDE, VALIDATE
from pipeline.store.artifacts import Artifact, Store
from tests.dags.conftest import make_decided
from tests.support.hook import Hook
from tests.support.tiny_releases import make_artifact

if TYPE_CHECKING:
    from airflow.sdk import Context

InTask = Callable[..., "Context"]


def every_error() -> list[type[SaebyeokError]]:
    found = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, SaebyeokError)]
    assert {item.retryable for item in found} == {True, False}
    return found


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_only_retryable_errors_are_retried(wiring: ModuleType, in_task: InTask, kind: type[SaebyeokError]) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    noted = in_task()["ti"].pushed  # type: ignore[attr-defined]
    with pytest.raises(kind if kind.retryable else AirflowFailException, match="the sentence"), wiring.airflow_errors():
        raise kind("the sentence\nand more")
    # A task that is retried has not failed yet.
    assert noted == ({} if kind.retryable else {"run_note": "nsmc.validate failed: the sentence"})


def test_unexpected_error_fails_at_once_with_its_cause(wiring: ModuleType, in_task: InTask) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    noted = in_task()["ti"].pushed  # type: ignore[attr-defined]
    with pytest.raises(AirflowFailException, match="ZeroDivisionError: division") as caught, wiring.airflow_errors():
        1 / 0  # noqa: B018
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert noted == {"run_note": "nsmc.validate failed: ZeroDivisionError: division by zero"}


def test_a_skip_stays_a_skip(wiring: ModuleType) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException), wiring.airflow_errors():
        raise AirflowSkipException("not chosen")


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("", "/saebyeok/decide/x/report.html"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/saebyeok/decide/x/report.html"),
        ("https://airflow.example/team", "https://airflow.example/team/saebyeok/decide/x/report.html"),
    ],
)
def test_a_reader_outside_airflow_is_told_the_host(
    wiring: ModuleType, base_url: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert wiring.with_host(wiring.artifact_url("decide/x", "report.html")) == address


@pytest.mark.parametrize(
    ("logical", "after", "day"),
    [
        # 03:00 in Seoul is 18:00 UTC on the day before.
        ("2015-08-05T18:00:00+00:00", "2026-11-21T12:00:00+00:00", "2015-08-06"),
        (None, "2015-08-05T18:00:00+00:00", "2015-08-06"),
        (None, "2015-08-05T14:59:00+00:00", "2015-08-05"),
    ],
)
def test_a_run_is_for_its_day_in_seoul(wiring: ModuleType, logical: str | None, after: str, day: str) -> None:
    context = {
        "logical_date": datetime.fromisoformat(logical) if logical else None,
        "dag_run": SimpleNamespace(run_after=datetime.fromisoformat(after), triggering_user_name=None),
    }
    assert str(wiring.run_date(context)) == day


@pytest.mark.parametrize(("given", "number"), [("5e-5", 5e-5), (5e-5, 5e-5), (0, 0.0), ("", None), (None, None)])
def test_the_form_may_send_a_number_as_text(wiring: ModuleType, given: Any, number: float | None) -> None:
    assert wiring.as_number(given) == number


@pytest.mark.parametrize(("name", "asker"), [("kim", "kim"), (None, None), ("", None)])
def test_asker_is_who_triggered_the_run(wiring: ModuleType, name: str | None, asker: str | None) -> None:
    assert wiring.asker({"dag_run": SimpleNamespace(triggering_user_name=name)}) == asker


def test_links_keep_the_path_prefix_of_airflow(wiring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wiring.artifact_url("decide/nsmc/k/a", "report.html") == "/saebyeok/decide/nsmc/k/a/report.html"
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ml/")
    assert wiring.artifact_url("decide/nsmc/k/a", "report.html") == "/ml/saebyeok/decide/nsmc/k/a/report.html"


@pytest.mark.parametrize(
    ("run", "promote", "calls"),
    [
        ("cli-20261129", False, 2),
        ("cli-20261129", True, 1),
        ("manual__before", False, 1),
    ],
    ids=["refused by hand", "promoted by hand", "refused by Airflow"],
)
def test_refusal_by_hand_is_made_anew(
    wiring: ModuleType,
    make_job: Callable[..., Job],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    promote: bool,
    calls: int,
) -> None:
    forced: list[bool] = []

    def call(job: Job, evaluated: Artifact) -> Artifact:
        assert evaluated.manifest.kind == "evaluate"
        forced.append(job.force)
        return make_decided(store, promote=promote, run="manual__now" if job.force else run)

    evaluated = make_artifact(store, "evaluate", "nsmc", {})
    job = make_job(load_recipe("nsmc", "embedded"))
    monkeypatch.setitem(CALLS, DECIDE, call)
    ref = wiring.make_told(job, DECIDE, evaluated.ref)
    assert forced == [False, True][:calls]
    # The release that was reported, or is about to be.
    assert store.open(ref).manifest.run == ("manual__now" if calls == 2 else run)


def test_rejection_of_data_by_hand_is_made_anew(
    wiring: ModuleType, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(job: Job) -> Artifact:
        raise RejectedDataError("line 3", run="manual__now" if job.force else "cli-20261129")

    monkeypatch.setitem(CALLS, VALIDATE, call)
    # A run that was not started by hand has sent an alert.
    with pytest.raises(RejectedDataError) as caught:
        wiring.make_told(make_job(load_recipe("nsmc", "embedded")), VALIDATE)
    assert caught.value.run == "manual__now"


def test_rejection_of_data_that_was_told_is_raised(
    wiring: ModuleType, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[bool] = []

    def call(job: Job) -> Artifact:
        forced.append(job.force)
        raise RejectedDataError("line 3", run="manual__before")

    monkeypatch.setitem(CALLS, VALIDATE, call)
    with pytest.raises(RejectedDataError):
        wiring.make_told(make_job(load_recipe("nsmc", "embedded")), VALIDATE)
    assert forced == [False]


def test_accepted_data_by_hand_are_found_again(
    wiring: ModuleType, make_job: Callable[..., Job], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Started by hand, but no decision.
    made = store.open(make_by_hand(store).ref)
    job = make_job(load_recipe("nsmc", "embedded"))
    monkeypatch.setitem(CALLS, VALIDATE, lambda job: made)
    assert wiring.make_told(job, VALIDATE) == made.ref


def make_by_hand(store: Store) -> Artifact:
    with store.draft() as draft:
        (draft / "rows.txt").write_text("rows", encoding="utf-8")
        return store.publish(draft, "validate", "nsmc", "0" * 16, run="cli-20261129", inputs={}, fields={}, figures={})


@pytest.mark.parametrize(
    ("results", "address"),
    [
        ({"return_value": "decide/nsmc/k/a"}, "/saebyeok/decide/nsmc/k/a/report.html"),
        ({"artifact": "rejected-data/nsmc/k/a"}, "/saebyeok/rejected-data/nsmc/k/a/report.html"),
        ({"return_value": "decide/nsmc/k/a", "artifact": "other"}, "/saebyeok/decide/nsmc/k/a/report.html"),
        ({}, ""),
        ({"return_value": True}, ""),
    ],
)
def test_link_leads_to_what_the_task_made(wiring: ModuleType, results: dict[str, Any], address: str) -> None:
    def pull(task_ids: str, key: str = "return_value") -> Any:
        return results.get(key) if task_ids == "nsmc.decide" else None

    instance = SimpleNamespace(task_id="nsmc.decide", xcom_pull=pull)
    assert wiring.ReportLink().get_link(None, ti_key=instance) == address


def test_links_open_the_page_of_their_name(wiring: ModuleType) -> None:
    assert (wiring.DataDocsLink.name, wiring.DataDocsLink.file) == ("Data docs", "docs/index.html")
    assert (wiring.ReportLink.name, wiring.ReportLink.file) == ("Report", "report.html")


def test_question_is_answered_below_its_task(wiring: ModuleType) -> None:
    instance = SimpleNamespace(dag_id="nightly_retrain", task_id="nsmc.approve", run_id="manual__1+00:00")
    page = "/dags/nightly_retrain/runs/manual__1%2B00%3A00/tasks/nsmc.approve/required_actions"
    assert wiring.required_actions_url(instance) == page


def test_asset_is_the_one_that_the_docs_name(wiring: ModuleType) -> None:
    asset = wiring.champion_asset("nsmc")
    assert (asset.name, asset.uri, asset.group) == ("champion-nsmc", "saebyeok://champion/nsmc", "champion")


def test_failure_alert_names_dag_run_and_task(wiring: ModuleType, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example")
    instance = SimpleNamespace(dag_id="rollback", task_id="rollback", run_id="manual__1+00:00")
    wiring.alert_failure({"ti": instance, "run_id": "manual__1+00:00", "exception": ValueError("no deployment 7")})
    link = "https://airflow.example/dags/rollback/runs/manual__1%2B00%3A00/tasks/rollback"
    text = f"rollback: rollback failed: no deployment 7 Log: {link}"
    facts = {"dag": "rollback", "run": "manual__1+00:00", "task": "rollback", "link": link}
    assert hook.bodies == [{"event": "failed", "text": text} | facts]


def test_skip_says_why_in_log_and_note(wiring: ModuleType, in_task: InTask, caplog: pytest.LogCaptureFixture) -> None:
    # Airflow itself does not log the reason.
    noted = in_task()["ti"].pushed  # type: ignore[attr-defined]
    assert str(wiring.skip("nsmc", "not chosen")) == "not chosen"
    assert noted == {"run_note": "nsmc skipped: not chosen"}
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "skipped: not chosen")
    ]
