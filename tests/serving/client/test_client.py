"""The client for applications, against a small scripted server."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from pipeline.deployment.service_client import ServiceClient
from pipeline.errors import ServiceError, SettingsError
from serving.client import (
    AsyncClient,
    Backoff,
    CallError,
    Client,
    FailedCallError,
    NoAnswerError,
    RefusedCallError,
)
from serving.client.client import certificates
from serving.client.responses import ClassifyResponse
from serving.schemas import ErrorType
from tests.support.http_server import running
from tests.support.running_service import free_url
from tests.support.urls import MALFORMED

ANSWER = {"recipe": "nsmc", "release": "nsmc-1", "sample": False, "results": []}
#: The default retries without pauses.
AT_ONCE = Backoff(first=0.0)


@dataclass
class Told:
    """One response; status 0 drops the connection instead."""

    status: int = 200
    body: Any = field(default_factory=lambda: ANSWER)
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, kind: str, index: int | None = None, **headers: str) -> Told:
    return Told(status, {"error": {"type": kind, "message": f"it is {kind}", "index": index}}, headers)


class ScriptedServer(ThreadingHTTPServer):
    """Respond with the entries of `script` in order, and record the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.script: list[Told] = []
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.connections = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)


class ScriptedHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body), dict(self.headers)))
        told = self.server.script.pop(0)
        if told.status == 0:
            self.close_connection = True
            return
        content = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    with running(scripted):
        yield scripted


Classify = Callable[..., ClassifyResponse]


def ask(url: str, times: int = 1, **options: Any) -> ClassifyResponse:
    with Client(url, **options) as client:
        return [client.classify(["좋다"]) for _ in range(times)][-1]


def ask_async(url: str, times: int = 1, **options: Any) -> ClassifyResponse:
    async def run() -> ClassifyResponse:
        async with AsyncClient(url, **options) as client:
            return [await client.classify(["좋다"]) for _ in range(times)][-1]

    return asyncio.run(run())


both = pytest.mark.parametrize("classify", [ask, ask_async])


@pytest.mark.parametrize("url", MALFORMED)
def test_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a service"):
        Client(url)


def test_url_keeps_neither_blanks_nor_slashes() -> None:
    with Client(" https://box.example:65535/path// ") as client:
        assert client.url == "https://box.example:65535/path"


@both
def test_client_sends_the_key_over_one_connection(server: ScriptedServer, classify: Classify) -> None:
    server.script = [Told(), Told(), Told()]
    assert classify(server.url + "/", 3, api_key="s3cret\n").release == "nsmc-1"
    path, body, headers = server.asked[0]
    assert (path, body) == ("/classify", {"texts": ["좋다"], "recipe": None})
    assert headers["Authorization"] == "Bearer s3cret"
    assert (len(server.asked), server.connections) == (3, 1)


@both
def test_without_a_key_none_is_sent(server: ScriptedServer, classify: Classify) -> None:
    server.script = [Told()]
    classify(server.url)
    assert "Authorization" not in server.asked[0][2]


@both
@pytest.mark.parametrize("first", [refusal(429, "overloaded", Retry_After="0"), refusal(503, "unavailable"), Told(0)])
def test_transient_errors_are_retried(server: ScriptedServer, classify: Classify, first: Told) -> None:
    server.script = [first, first, Told()]
    assert classify(server.url, backoff=AT_ONCE).recipe == "nsmc"
    assert [item[:2] for item in server.asked] == [("/classify", {"texts": ["좋다"], "recipe": None})] * 3


@both
@pytest.mark.parametrize("status", [429, 503])
def test_lasting_errors_are_raised_after_retries(server: ScriptedServer, classify: Classify, status: int) -> None:
    server.script = [refusal(status, "overloaded")] * 3
    with pytest.raises(FailedCallError, match="/classify: it is overloaded") as caught:
        classify(server.url, backoff=Backoff(retries=2, first=0.0))
    error = caught.value
    assert (error.status, error.type, error.message, error.index) == (status, "overloaded", "it is overloaded", None)
    assert error.retryable
    assert server.script == []


@both
@pytest.mark.parametrize(
    ("status", "error"), [(400, RefusedCallError), (422, RefusedCallError), (500, FailedCallError)]
)
def test_any_other_error_is_raised_at_once(
    server: ScriptedServer, classify: Classify, status: int, error: type[CallError]
) -> None:
    kind = ErrorType.of(status)
    server.script = [refusal(status, kind, index=2)]
    with pytest.raises(error) as caught:
        classify(server.url, backoff=AT_ONCE)
    assert (caught.value.status, caught.value.type, caught.value.index) == (status, kind, 2)
    assert caught.value.retryable is (status == 500)


@both
def test_proxy_error_keeps_its_status(server: ScriptedServer, classify: Classify) -> None:
    server.script = [Told(502, b"<h1>Bad Gateway</h1>")]
    with pytest.raises(FailedCallError, match="status 502") as caught:
        classify(server.url)
    assert (caught.value.status, caught.value.type) == (502, "unknown")


@both
def test_foreign_response_raises_no_answer_error(server: ScriptedServer, classify: Classify) -> None:
    server.script = [Told(200, {"hello": "world"})]
    with pytest.raises(NoAnswerError, match="not Saebyeok's"):
        classify(server.url)


@both
def test_unreachable_service_raises_no_answer_error(classify: Classify) -> None:
    url = free_url()
    with pytest.raises(NoAnswerError, match=f"no service answers at {url}"):
        classify(url, backoff=AT_ONCE)


@both
def test_timeout_is_not_retried(classify: Classify) -> None:
    # Listens, but never answers.
    with ScriptedServer() as deaf:
        with pytest.raises(NoAnswerError, match="did not answer in time"):
            classify(deaf.url, timeout=0.05, backoff=AT_ONCE)
        deaf.socket.setblocking(False)
        deaf.socket.accept()[0].close()
        with pytest.raises(BlockingIOError):
            deaf.socket.accept()


def test_single_text_or_pair_is_refused(server: ScriptedServer) -> None:
    with Client(server.url) as client:
        for call in (client.classify, client.score, client.embed):
            with pytest.raises(TypeError, match=r"put a single text into a list: \[text\]"):
                call("문장")
        for wrong in ("둘", ("비가 온다", "비가 내린다"), ["가나", "다라"]):
            for call in (client.similarity, lambda pairs: client.classify(pairs=pairs)):
                with pytest.raises(TypeError, match=r"put a single pair into a list: \[\(text, text\)\]"):
                    call(wrong)
    assert server.asked == []


@both
def test_loopback_service_is_called_without_a_proxy(
    server: ScriptedServer, classify: Classify, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, free_url())
    server.script = [Told()]
    assert classify(server.url, backoff=AT_ONCE).release == "nsmc-1"


@both
def test_password_in_the_url_is_not_shown(server: ScriptedServer, classify: Classify) -> None:
    server.script = [refusal(404, "not_found")]
    for url in (server.url, free_url()):
        with pytest.raises((RefusedCallError, NoAnswerError), match=r"http://\*\*\*@127\.0\.0\.1") as caught:
            classify(url.replace("://", "://user:very-secret@"), backoff=AT_ONCE)
        assert "very-secret" not in str(caught.value)


@both
@pytest.mark.parametrize("key", ["s3cret-in-two\nlines", "열쇠"])
def test_key_that_no_header_can_carry_is_not_shown(classify: Classify, key: str) -> None:
    with pytest.raises(ValueError, match="the API key contains a line break or a character outside ASCII") as caught:
        classify("http://127.0.0.1:1", api_key=key)
    assert key not in str(caught.value)


def test_connections_of_ones_own_are_used_and_closed(server: ScriptedServer) -> None:
    server.script = [Told()]
    own = httpx.Client(headers={"X-Team": "films"})
    ask(server.url, http=own)
    assert server.asked[0][2]["X-Team"] == "films"
    assert own.is_closed


def response(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_pauses_double_and_differ() -> None:
    backoff = Backoff(retries=4, first=1.0, longest=6.0)
    busy = response(429)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 6.0)):
        pauses = {backoff.pause(attempt, busy) for _ in range(50)}
        assert len(pauses) > 40
        assert all(pause is not None and most / 2 <= pause <= most for pause in pauses)
    assert backoff.pause(5, busy) is None


def test_client_waits_as_the_service_asks() -> None:
    backoff = Backoff(first=0.0, longest=30.0)
    assert backoff.pause(1, response(429, Retry_After="7")) == 7.0
    assert backoff.pause(1, response(503, Retry_After="30")) == 30.0
    assert backoff.pause(1, response(503, Retry_After="31")) is None, "longer than it has patience for"
    assert backoff.pause(1, response(503, Retry_After="soon")) == 0.0
    assert backoff.pause(1, response(400, Retry_After="1")) is None


def test_certificates_are_loaded_once(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: loads.append(None))
    # As in a new process.
    monkeypatch.setattr("serving.client.client.certificates", cache(certificates.__wrapped__))
    with Client(server.url), Client(server.url):
        AsyncClient(server.url)
    assert len(loads) == 1


@pytest.mark.usefixtures("retries_at_once")
def test_deployer_uses_one_connection_per_request(server: ScriptedServer) -> None:
    server.script = [Told(), Told(), refusal(401, "unauthorized")]
    with ServiceClient(server.url, "token") as client:
        client.classify(["가"])
        client.classify(["가"], release="nsmc-2")
        assert server.connections == 2
        assert server.asked[1][2]["X-Saebyeok-Release"] == "nsmc-2"
        assert {item[2]["Authorization"] for item in server.asked} == {"Bearer token"}
        with pytest.raises(SettingsError, match="another deploy token"):
            client.stage("release/x")
    nobody = free_url()
    with ServiceClient(nobody) as client, pytest.raises(ServiceError, match="SAEBYEOK_SERVICE_URL"):
        client.releases()
