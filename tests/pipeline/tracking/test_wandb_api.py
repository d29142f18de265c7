"""Requests to Weights & Biases, and errors of a server that does not answer or not as expected."""

from __future__ import annotations

import pytest

from pipeline.errors import SettingsError, TrackingError
from pipeline.tracking.runs import Destination, find_destination
from pipeline.tracking.wandb_api import find_account, find_address, find_project
from tests.support.wandb_http import DRIP, DROP, ERROR, FORBID, HANG, LIMIT, PORTAL, REFUSE
from tests.support.wandb_server import ENTITY, KEY, WandbServer

pytestmark = pytest.mark.server


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_mode_is_chosen_without_a_request(environment: dict[str, str], mode: str) -> None:
    assert find_destination(environment).mode == mode


def test_online_with_a_key_and_a_server(wandb_online: WandbServer) -> None:
    found = find_destination({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": wandb_online.url})
    assert found == Destination("online", ENTITY)


def test_a_wrong_key_is_named_without_itself(wandb_online: WandbServer, caplog: pytest.LogCaptureFixture) -> None:
    assert find_destination({"WANDB_API_KEY": "1" * 40, "WANDB_BASE_URL": wandb_online.url}).mode == "offline"
    (warning,) = warnings(caplog)
    assert "WANDB_API_KEY" in warning
    assert "saebyeok sync" in warning
    assert "1" * 40 not in warning


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (REFUSE, "rejects the key in WANDB_API_KEY (HTTP 401)"),
        (FORBID, "rejects the key in WANDB_API_KEY (HTTP 403)"),
        (LIMIT, "429"),
        (ERROR, "500"),
        (HANG, "timed out"),
        (DROP, "disconnected"),
        (DRIP, "timed out"),
        (PORTAL, "gave no valid answer"),
    ],
)
def test_unresponsive_server_is_asked_once(
    wandb_online: WandbServer,
    failure: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pipeline.tracking.wandb_api.REACH_TIMEOUT", 0.5)
    wandb_online.fail = lambda operation, body: failure
    assert find_destination({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": wandb_online.url}).mode == "offline"
    assert wandb_online.asked == ["Viewer"]
    (warning,) = warnings(caplog)
    assert says in warning
    assert "saebyeok sync" in warning
    assert KEY not in warning


def test_entity_defaults_to_the_owner_of_the_key(wandb_online: WandbServer) -> None:
    environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"{wandb_online.url}/"}
    assert find_account(environment) == ENTITY
    assert find_account(environment | {"WANDB_ENTITY": "other"}) == "other"
    assert find_address(environment) == wandb_online.url


def test_server_without_a_viewer_rejects_the_key(wandb_online: WandbServer) -> None:
    wandb_online.accounts = False
    with pytest.raises(TrackingError, match="rejects the key in WANDB_API_KEY"):
        find_account({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": wandb_online.url})


@pytest.mark.parametrize("environment", [{}, {"WANDB_API_KEY": ""}])
def test_without_a_key_no_request_is_sent(environment: dict[str, str], wandb_online: WandbServer) -> None:
    with pytest.raises(SettingsError, match="WANDB_API_KEY is not set"):
        find_account({"WANDB_BASE_URL": wandb_online.url} | environment)
    assert wandb_online.asked == []


def test_the_project_is_ours_unless_another_is_named() -> None:
    assert find_project({"WANDB_PROJECT": ""}) == "saebyeok"
    assert find_project({"WANDB_PROJECT": "other"}) == "other"
