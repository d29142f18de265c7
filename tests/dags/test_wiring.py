"""Errors in Airflow's terms, alerts, and which deployment made a release the champion."""

from __future__ import annotations

import importlib
import logging
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline import errors
from pipeline.artifacts import Store
from pipeline.errors import SaebyeokError
from pipeline.releases import DeploymentLog
from pipeline.settings import ROOT
from tests.hook import Hook


@pytest.fixture(scope="module")
def wiring(airflow_home: Path) -> ModuleType:
    sys.path.append(str(ROOT / "dags"))
    try:
        return importlib.import_module("wiring")
    finally:
        sys.path.remove(str(ROOT / "dags"))


def every_error() -> list[type[SaebyeokError]]:
    found = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, SaebyeokError)]
    assert {item.retryable for item in found} == {True, False}
    return found


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_only_what_a_retry_can_help_is_left_to_be_retried(wiring: ModuleType, kind: type[SaebyeokError]) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(kind if kind.retryable else AirflowFailException, match="the sentence"), wiring.airflow_errors():
        raise kind("the sentence")


def test_an_unforeseen_error_fails_at_once_and_keeps_its_cause(wiring: ModuleType) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="ZeroDivisionError: division") as caught, wiring.airflow_errors():
        1 / 0  # noqa: B018
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


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
        # 03:00 in Seoul is the evening before in Greenwich.
        ("2015-08-05T18:00:00+00:00", "2026-11-21T12:00:00+00:00", "2015-08-06"),
        (None, "2015-08-05T18:00:00+00:00", "2015-08-06"),
        (None, "2015-08-05T14:59:00+00:00", "2015-08-05"),
    ],
)
def test_a_run_is_for_its_day_in_seoul(wiring: ModuleType, logical: str | None, after: str, day: str) -> None:
    context = {
        "logical_date": datetime.fromisoformat(logical) if logical else None,
        "dag_run": SimpleNamespace(run_after=datetime.fromisoformat(after)),
    }
    assert str(wiring.run_date(context)) == day


@pytest.mark.parametrize(("given", "number"), [("5e-5", 5e-5), (5e-5, 5e-5), ("", None), (None, None)])
def test_the_form_may_send_a_number_as_text(wiring: ModuleType, given: Any, number: float | None) -> None:
    assert wiring.as_number(given) == number


def test_an_alert_is_an_error_line_and_a_post(
    wiring: ModuleType, hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SAEBYEOK_ALERT_WEBHOOK", hook.url)
    wiring.alert("refused", "nsmc: refused", {"recipe": "nsmc"})
    assert [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "wiring"] == [
        (logging.ERROR, "nsmc: refused")
    ]
    assert hook.bodies == [{"event": "refused", "text": "nsmc: refused", "recipe": "nsmc"}]


@pytest.mark.parametrize("address", ["{url}/broken", "http://127.0.0.1:9", "no address"])
def test_an_alert_that_cannot_be_sent_is_no_failure(
    wiring: ModuleType,
    hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    monkeypatch.setenv("SAEBYEOK_ALERT_WEBHOOK", address.format(url=hook.url))
    wiring.alert("failed", "train failed", {})
    messages = [record.getMessage() for record in caplog.records if record.name == "wiring"]
    assert messages[0] == "train failed"
    assert "could not be sent" in messages[1]


def test_the_promotion_is_the_first_deployment_of_the_last_unbroken_line(wiring: ModuleType, store: Store) -> None:
    log = DeploymentLog(store)
    for number, (run, nsmc, other) in enumerate(
        [("a", "n1", "k1"), ("b", "n2", "k1"), ("c", "n1", "k1"), ("d", "n1", "k2"), ("e", "n1", "k3")]
    ):
        log.append({"nsmc": nsmc, "klue-sts": other}, after=number, run=run, reason="test")
    assert wiring.promotion(store, "nsmc", "n1").run == "c"
    assert wiring.promotion(store, "klue-sts", "k3").run == "e"
    assert wiring.promotion(store, "nsmc", "n2") is None


def test_links_keep_the_path_that_airflow_is_served_under(wiring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wiring.artifact_url("decide/nsmc/k/a", "report.html") == "/saebyeok/decide/nsmc/k/a/report.html"
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ml/")
    assert wiring.artifact_url("decide/nsmc/k/a", "report.html") == "/ml/saebyeok/decide/nsmc/k/a/report.html"


@pytest.mark.parametrize(("now", "first"), [("17:59", "21T18:00"), ("18:01", "22T18:00"), ("20:00", "22T18:00")])
def test_a_night_that_has_just_passed_is_not_run(
    wiring: ModuleType, monkeypatch: pytest.MonkeyPatch, now: str, first: str
) -> None:
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable
    from airflow.timetables import trigger
    from airflow.timetables.base import TimeRestriction

    # As the scheduler has it: read back from what the parser wrote.
    timetable = decode_timetable(encode_timetable(wiring.daily("03:00")))
    monkeypatch.setattr(trigger, "utcnow", lambda: datetime.fromisoformat(f"2026-11-21T{now}:00+00:00"))
    found = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(earliest=None, latest=None, catchup=False)
    )
    assert found is not None
    assert found.run_after.isoformat().startswith(f"2026-11-{first}")
