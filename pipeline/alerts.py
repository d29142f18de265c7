"""Alerts: events that people must know, as JSON for a webhook."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import SecretStr

from pipeline.errors import ServiceError, SettingsError
from pipeline.settings import Settings, load_settings
from pipeline.store.deployments import Deployment

log = logging.getLogger(__name__)

Event = Literal["failed", "refused", "waiting", "rejected", "arrivals_gone", "promoted", "rolled_back", "test"]
#: Events that need no action. They are logged as information, all others as errors.
GOOD_EVENTS = ("promoted", "rolled_back", "test")
#: Seconds within which the webhook must answer.
PATIENCE = 10.0


def alert(event: Event, text: str, facts: Mapping[str, Any]) -> None:
    """Log `text`, and post it to `SAEBYEOK_ALERT_WEBHOOK` if that is set. Never raises an error.

    The JSON has `event`, `text` (which chat services display) and the keys of `facts`.
    """
    log.log(logging.INFO if event in GOOD_EVENTS else logging.ERROR, "%s", text)
    try:
        webhook = load_settings().alert_webhook
        if webhook is not None:
            _post(webhook, event, text, facts)
    except Exception as error:  # noqa: BLE001 - an alert that cannot be sent must not fail the task
        log.warning("could not send the alert to SAEBYEOK_ALERT_WEBHOOK: %s", type(error).__name__)


def alert_deployment(deployment: Deployment, links: Mapping[str, str]) -> None:
    """Send an alert about a new promotion or rollback; `links` are URLs of pages by name, such as `report`."""
    who = f", by {deployment.by}" if deployment.by else ""
    text = f"deployment {deployment.number} is live{who}: {deployment.reason.rstrip('.')}."
    pages = "".join(f" {name.capitalize()}: {url}" for name, url in links.items())
    event: Event = "rolled_back" if deployment.intent == "rollback" else "promoted"
    alert(event, text + pages, deployment.document() | dict(links))


def send_test_alert(settings: Settings) -> None:
    """Post a test alert. Raises SettingsError if no webhook is set, ServiceError if it does not accept the alert."""
    if settings.alert_webhook is None:
        raise SettingsError("SAEBYEOK_ALERT_WEBHOOK is not set; set it to the URL that receives the alerts")
    try:
        _post(settings.alert_webhook, "test", "test alert of Saebyeok: no action is needed", {})
    except Exception as error:  # noqa: BLE001 - whatever it is, its message may contain the URL, which is a secret
        raise ServiceError(f"SAEBYEOK_ALERT_WEBHOOK did not accept the alert: {_named(error)}") from None


def _post(webhook: SecretStr, event: Event, text: str, facts: Mapping[str, Any]) -> None:
    # Imported here, because it takes a tenth of a second.
    import httpx

    from pipeline.http_requests import certificates

    body = {"event": event, "text": text, **facts}
    address = webhook.get_secret_value()
    httpx.post(address, json=body, timeout=PATIENCE, verify=certificates()).raise_for_status()


def _named(error: Exception) -> str:
    """Return the type of an error, with the HTTP status if it has one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else type(error).__name__
