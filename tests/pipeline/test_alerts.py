"""Alerts: their JSON, their level in the log, and a webhook that does not accept them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from pipeline.alerts import Event, alert, alert_deployment, send_test_alert
from pipeline.errors import ServiceError, SettingsError
from pipeline.settings import Settings, load_settings
from pipeline.store.deployments import Deployment, Intent
from tests.support.hook import Hook

#: Addresses that do not accept an alert, and the error that names the reason without the address.
UNSENT = [
    ("{url}/broken", "HTTP status 500"),
    ("http://127.0.0.1:9/secret", "ConnectError"),
    ("no address", "UnsupportedProtocol"),
]


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.alerts")


@pytest.mark.parametrize(("event", "level"), [("refused", logging.ERROR), ("promoted", logging.INFO)])
def test_alert_is_logged_and_posted(hook: Hook, caplog: pytest.LogCaptureFixture, event: Event, level: int) -> None:
    alert(event, "nsmc: the sentence", {"recipe": "nsmc"})
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(level, "nsmc: the sentence")]
    assert hook.bodies == [{"event": event, "text": "nsmc: the sentence", "recipe": "nsmc"}]


def test_alert_without_webhook_is_only_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    assert settings.alert_webhook is None
    alert("failed", "train failed", {})
    assert [record.getMessage() for record in caplog.records] == ["train failed"]


@pytest.mark.parametrize(("address", "reason"), UNSENT)
def test_unsent_alert_raises_nothing(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str, reason: str
) -> None:
    monkeypatch.setenv("SAEBYEOK_ALERT_WEBHOOK", address.format(url=hook.url))
    alert("failed", "train failed", {})
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "train failed"
    assert second.startswith("could not send the alert to SAEBYEOK_ALERT_WEBHOOK: ")


@pytest.mark.parametrize(
    ("intent", "by", "event", "who"),
    [("promotion", None, "promoted", ""), ("rollback", "kim", "rolled_back", ", by kim")],
)
def test_deployment_alert_names_person_and_pages(
    hook: Hook, intent: Intent, by: str | None, event: str, who: str
) -> None:
    deployment = Deployment(
        number=3,
        created=datetime(2026, 11, 29, tzinfo=UTC),
        run="run-1",
        reason="Promoted: it is better.",
        releases={"nsmc": "release/nsmc/k/a"},
        intent=intent,
        by=by,
    )
    alert_deployment(deployment, {"report": "http://airflow.example/report.html"})
    (body,) = hook.bodies
    assert body["text"] == (
        f"deployment 3 is live{who}: Promoted: it is better. Report: http://airflow.example/report.html"
    )
    assert (body["event"], body["number"], body["by"], body["releases"], body["report"]) == (
        event,
        3,
        by,
        {"nsmc": "release/nsmc/k/a"},
        "http://airflow.example/report.html",
    )


def test_test_alert_reaches_the_webhook(hook: Hook) -> None:
    send_test_alert(load_settings())
    assert [body["event"] for body in hook.bodies] == ["test"]


@pytest.mark.parametrize(("address", "reason"), UNSENT)
def test_test_alert_error_hides_the_address(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    monkeypatch.setenv("SAEBYEOK_ALERT_WEBHOOK", address.format(url=hook.url))
    with pytest.raises(ServiceError) as caught:
        send_test_alert(load_settings())
    assert str(caught.value) == f"SAEBYEOK_ALERT_WEBHOOK did not accept the alert: {reason}"


def test_test_alert_needs_a_webhook(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="SAEBYEOK_ALERT_WEBHOOK is not set"):
        send_test_alert(settings)
