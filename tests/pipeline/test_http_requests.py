"""Requests to other services: certificates and the environment."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from pipeline.http_requests import certificates, get, options_for
from tests.support.running_service import free_url

ELSEWHERE = "https://service.example"


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    """Nothing is loaded yet, and nothing that is loaded here stays."""
    certificates.cache_clear()
    yield
    certificates.cache_clear()


def test_certificates_are_loaded_once_per_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: loads.append(None))
    for _ in range(2):
        options_for(ELSEWHERE)
        options_for("http://127.0.0.1:3000")
    assert len(loads) == 2


def test_environment_counts_only_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    monkeypatch.setenv("HTTP_PROXY", free_url())
    with pytest.raises(FileNotFoundError):
        get(ELSEWHERE, timeout=1)
    assert [options_for(url)["trust_env"] for url in ("http://127.0.0.1:3000", "https://localhost")] == [False, False]
    with pytest.raises(httpx.ConnectError):
        get(free_url(), timeout=5)
