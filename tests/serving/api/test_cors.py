"""Calls from web pages of other origins."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.api.cors import with_cors
from serving.api.middleware import Front

ORIGINS = "https://app.example, http://127.0.0.1:5173"


def client(origins: str) -> TestClient:
    async def classify(request: Request) -> Response:
        raise RuntimeError("unexpected")

    return TestClient(with_cors(Front(Starlette(routes=[Route("/classify", classify, methods=["POST"])])), origins))


def preflight(origins: str, origin: str, header: str = "authorization") -> int:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": header}
    return client(origins).options("/classify", headers={"Origin": origin} | asked).status_code


def test_page_of_an_allowed_origin_may_ask() -> None:
    for origin in ("https://app.example", "http://127.0.0.1:5173"):
        assert preflight(ORIGINS, origin) == 200
        # Errors too, which a page could otherwise not tell from a lost connection.
        answer = client(ORIGINS).post("/classify", headers={"Origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (500, origin)
        assert answer.headers["access-control-expose-headers"] == (
            "Retry-After, Server-Timing, X-Request-Id, X-Saebyeok-Deployment"
        )
        assert answer.headers["x-request-id"]
    assert preflight("*", "https://any.example") == 200
    assert preflight(ORIGINS, "https://app.example", "x-saebyeok-release, x-saebyeok-deployment") == 200


def test_page_of_another_origin_may_not() -> None:
    assert preflight(ORIGINS, "https://app.example.attacker.example") == 400
    assert preflight(ORIGINS, "https://app.example", "x-other") == 400
    answer = client(ORIGINS).post("/classify", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in answer.headers
    # Without the setting, a preflight is a request with a wrong method.
    assert preflight("", "https://app.example") == 405
