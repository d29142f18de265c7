"""The client of Airflow's REST API, with a server that answers like Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pipeline.errors import ServiceError, StackError
from pipeline.stack.airflow_api import AirflowApi
from tests.support.http_server import running

ANSWERS: dict[str, tuple[int, Any]] = {
    "POST /auth/token": (201, {"access_token": "t0ken"}),
    "GET /api/v2/monitor/health": (200, {"metadatabase": {"status": "healthy"}, "triggerer": {"status": None}}),
    "GET /api/v2/pools/gpu": (404, {"detail": "not found"}),
    "POST /api/v2/pools": (201, {}),
    "POST /api/v2/dags/nightly/dagRuns": (400, {"detail": "Invalid input for param epochs: 0 is less than 1"}),
    "GET /api/v2/dags/nightly": (200, {"dag_id": "nightly", "is_paused": True}),
    "GET /api/v2/dags/nightly/tasks": (
        200,
        {
            "tasks": [
                {"task_id": "a.train", "downstream_task_ids": ["a.decide"]},
                {"task_id": "a.decide", "downstream_task_ids": []},
                {"task_id": "a.validate", "downstream_task_ids": ["a.train", "a.decide"]},
            ]
        },
    ),
}


@pytest.fixture
def airflow() -> Iterator[tuple[AirflowApi, list[tuple[str, str | None, bytes]]]]:
    requests: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            name = f"{self.command} {self.path}"
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            requests.append((name, self.headers.get("authorization"), body))
            status, document = ANSWERS[name]
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815 - the names are http.server's

        def log_message(self, *args: Any) -> None:
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as url, AirflowApi(url, "admin", "secret") as api:
        yield api, requests


def test_client_signs_in_once_and_creates_pool(
    airflow: tuple[AirflowApi, list[tuple[str, str | None, bytes]]],
) -> None:
    api, requests = airflow
    api.ensure_pool("gpu", 1, "one at a time")
    assert [(name, token) for name, token, _ in requests] == [
        ("POST /auth/token", None),
        ("GET /api/v2/pools/gpu", "Bearer t0ken"),
        ("POST /api/v2/pools", "Bearer t0ken"),
    ]
    assert json.loads(requests[0][2]) == {"username": "admin", "password": "secret"}
    assert json.loads(requests[2][2])["slots"] == 1


def test_a_refusal_of_airflows_is_passed_on(airflow: tuple[AirflowApi, Any]) -> None:
    with pytest.raises(StackError, match=r"400.*0 is less than 1"):
        airflow[0].trigger("nightly", {"epochs": 0}, "")


def test_paused_dag_is_reported(airflow: tuple[AirflowApi, Any]) -> None:
    assert airflow[0].is_paused("nightly")


def test_tasks_are_ordered_by_what_they_wait_for(airflow: tuple[AirflowApi, Any]) -> None:
    assert airflow[0].task_order("nightly") == ["a.validate", "a.train", "a.decide"]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a proxy that does not answer, and no exception for loopback."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_health_names_each_component(proxy: None, airflow: tuple[AirflowApi, Any]) -> None:
    assert airflow[0].health() == {"metadatabase": "healthy", "triggerer": "absent"}


def test_an_airflow_that_is_away_is_said_so() -> None:
    with AirflowApi("http://127.0.0.1:9", "admin", "secret") as api:
        assert api.health() == {}
        with pytest.raises(ServiceError, match=r"Airflow at http://127\.0\.0\.1:9 does not answer"):
            api.unpause("nightly")
