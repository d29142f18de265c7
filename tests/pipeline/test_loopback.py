"""Calls to this machine go through no proxy."""

from __future__ import annotations

from urllib.request import proxy_bypass_environment

import httpx
import pytest

from pipeline.loopback import HOSTS, is_loopback, is_service_url, without_proxy
from serving.client import Client
from tests.support.urls import MALFORMED


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:3000", True),
        ("http://127.8.9.10", True),
        ("http://localhost:8080/path", True),
        ("https://LOCALHOST", True),
        ("http://[::1]:3000", True),
        ("http://0.0.0.0:3000", True),
        ("http://10.0.0.1:3000", False),
        ("http://localhost.example:3000", False),
        ("http://example.com/127.0.0.1", False),
        ("http://127.0.0.1@example.com", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_loopback_url_is_recognized(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


@pytest.mark.parametrize("url", MALFORMED)
def test_malformed_url_is_no_service(url: str) -> None:
    assert not is_service_url(url)
    with pytest.raises(ValueError, match="is not the URL of a service"):
        Client(url)


@pytest.mark.parametrize(
    "url", ["http://box", "https://box:443/a/b/", "http://[::1]:3000", "http://u:p@box_1:1", "http://새벽.kr"]
)
def test_url_of_a_service_is_accepted(url: str) -> None:
    assert is_service_url(url)
    with Client(url) as client:
        assert client.url == url.rstrip("/")


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_excluded_hosts_of_the_user_stay(name: str) -> None:
    found = without_proxy({name: "intranet.example, 127.0.0.1,"})
    assert found["NO_PROXY"] == found["no_proxy"] == "intranet.example,127.0.0.1,localhost,::1,0.0.0.0"
    assert without_proxy(found) == found
    assert without_proxy({name: "*"})["NO_PROXY"] == "*"


def test_libraries_call_loopback_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    for name, value in without_proxy({}).items():
        monkeypatch.setenv(name, value)
    assert all(proxy_bypass_environment(host) for host in HOSTS)
    assert not proxy_bypass_environment("example.com")
    with httpx.Client() as client:
        proxies = [client._transport_for_url(httpx.URL(f"http://{host}:3000")) for host in HOSTS[:2]]
        assert proxies == [client._transport] * 2
        assert client._transport_for_url(httpx.URL("http://example.com")) is not client._transport
