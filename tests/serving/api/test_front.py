"""Middleware in the real service: keys, ids, logs, limits, and disconnected clients."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from pipeline.deployment.service_client import ServiceClient
from serving.api.auth import deploy_token
from tests.support.running_service import Service, eventually, serving
from tests.support.tiny_releases import SENTENCES, TinyModel

pytestmark = pytest.mark.server

KEYS = ("the-first-key-of-two", "the-second-key-of-two")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, classifier: TinyModel) -> Iterator[Service]:
    """A service with one process, two keys, one thread and a queue of one."""
    limits = {
        "SAEBYEOK_WORKERS": "1",
        "SAEBYEOK_THREADS": "1",
        "SAEBYEOK_API_KEYS": ",".join(KEYS),
        "SAEBYEOK_MAX_CONCURRENT": "1",
        "SAEBYEOK_MAX_QUEUE": "1",
        "SAEBYEOK_MAX_INPUTS": "100000",
        "SAEBYEOK_MAX_BODY_BYTES": str(1 << 25),
    }
    with serving(tmp_path_factory.mktemp("guarded"), limits, classifier) as service:
        yield service


def heavy(texts: int) -> dict[str, list[str]]:
    """Return a request with the given number of long texts."""
    return {"texts": [SENTENCES[-1]] * texts}


def ask(service: Service, path: str = "/classify", key: str = KEYS[0], **more: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", **more}
    return httpx.post(f"{service.settings.service_url}{path}", json={"texts": ["좋다"]}, headers=headers)


def lines(service: Service) -> list[dict[str, object]]:
    """Return the parsed JSON lines of the log."""
    # Lines of BentoML's supervisor before the first worker are not JSON.
    return [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]


def line_of(service: Service, request_id: str) -> dict[str, object]:
    """Wait for the log line of one request and return it."""

    def found() -> list[dict[str, object]]:
        return [line for line in lines(service) if line.get("id") == request_id]

    eventually("the request is logged", found)
    (line,) = found()
    return line


@pytest.mark.parametrize("key", KEYS)
def test_each_key_opens_the_service(guarded: Service, key: str) -> None:
    assert ask(guarded, key=key).status_code == 200
    with ServiceClient(guarded.settings.service_url, key) as client:
        assert client.classify(["좋다"]).recipe == "nsmc"
        assert client.releases().deployment == 1


def test_deploy_token_admits_and_api_key_cannot_stage(guarded: Service) -> None:
    assert ask(guarded, key=deploy_token(guarded.settings)).status_code == 200
    assert ask(guarded, path="/releases/stage").status_code == 401
    assert ask(guarded, **{"X-Saebyeok-Release": "nsmc-" + "n" * 16}).status_code == 200
    assert ask(guarded, **{"X-Saebyeok-Release": "nsmc-" + "o" * 16}).status_code == 404


@pytest.mark.parametrize(
    "path", ["/classify", "/similarity", "/score", "/embed", "/releases", "/metrics", "/schema.json", "/no"]
)
def test_without_a_key_all_routes_are_unauthorized(guarded: Service, path: str) -> None:
    url = guarded.settings.service_url
    for headers in ({}, {"Authorization": "Bearer the-first-key-of-tw"}, {"Authorization": KEYS[0]}):
        for method in ("GET", "POST"):
            answer = httpx.request(method, f"{url}{path}", headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs.json", "/docs", "/static_content/swagger-ui.css"])
def test_health_and_documents_stay_open(guarded: Service, path: str) -> None:
    assert httpx.get(f"{guarded.settings.service_url}{path}").status_code == 200


def test_bentomls_own_client_works_with_a_key(guarded: Service) -> None:
    # In a separate process: it warns on import and on garbage collection.
    code = (
        "import bentoml, sys\n"
        "with bentoml.SyncHTTPClient(sys.argv[1], token=sys.argv[2]) as client:\n"
        "    print(client.classify({'texts': ['좋다']})['recipe'])"
    )
    command = [sys.executable, "-c", code, guarded.settings.service_url, KEYS[0]]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "nsmc\n"


def test_valid_request_id_is_kept(guarded: Service) -> None:
    assert ask(guarded, **{"X-Request-Id": "night-7.a_B"}).headers["x-request-id"] == "night-7.a_B"
    for given in ("", "a b", '"}{"', "a" * 129, "a\tb"):
        made = ask(guarded, **{"X-Request-Id": given}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
    assert ask(guarded, key="wrong").headers["x-request-id"]
    assert httpx.get(f"{guarded.settings.service_url}/livez").headers["x-request-id"]


def test_log_has_one_line_per_request_without_texts(guarded: Service) -> None:
    url = f"{guarded.settings.service_url}/classify"
    headers = {"Authorization": f"Bearer {KEYS[0]}", "X-Request-Id": "asked-well"}
    httpx.post(url, json={"texts": ["비밀스러운 문장", "둘"]}, headers=headers)
    line = line_of(guarded, "asked-well")
    assert (line["route"], line["method"], line["status"], line["inputs"]) == ("/classify", "POST", 200, 2)
    assert isinstance(line["milliseconds"], float)
    assert str(line["time"]).endswith("+00:00")
    headers["X-Request-Id"] = "asked-badly"
    httpx.post(url, json={"texts": ["비밀스러운 문장", 1]}, headers=headers)
    assert line_of(guarded, "asked-badly")["status"] == 422
    text = guarded.log.read_text()
    assert "비밀스러운" not in text
    assert KEYS[0] not in text
    assert "Traceback" not in text


def test_probes_are_not_logged(guarded: Service) -> None:
    httpx.get(f"{guarded.settings.service_url}/livez", headers={"X-Request-Id": "a-probe"})
    ask(guarded, **{"X-Request-Id": "after-the-probe"})
    assert line_of(guarded, "after-the-probe")
    assert not [line for line in lines(guarded) if line.get("id") == "a-probe"]


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(service.settings.service_url.rsplit(":", 1)[1])), 60)


class Sender:
    """A client with its own socket, which may disconnect before the response."""

    def __init__(self, service: Service, body: object, request_id: str) -> None:
        content = json.dumps(body, ensure_ascii=False).encode()
        self.socket = connect(service)
        head = f"Authorization: Bearer {KEYS[0]}\r\nX-Request-Id: {request_id}\r\nContent-Length: {len(content)}"
        self.socket.sendall(f"POST /classify HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + content)

    def leave(self) -> None:
        self.socket.close()


@contextmanager
def at_work(service: Service, body: object, request_id: str) -> Iterator[None]:
    """Keep the only thread busy with a request during the block; it may finish earlier."""
    begun = metric(service, "saebyeok_queue_seconds_count")
    sender = Sender(service, body, request_id)
    try:
        eventually("it has begun", lambda: metric(service, "saebyeok_queue_seconds_count") > begun)
        yield
    finally:
        sender.leave()


def test_full_queue_sends_retry_after(guarded: Service) -> None:
    answers: list[httpx.Response] = []

    def refused() -> list[httpx.Response]:
        with at_work(guarded, heavy(5_000), "busy"), ThreadPoolExecutor() as pool:
            # One of them takes the place in the queue.
            answers.extend(pool.map(lambda _: ask(guarded), range(3)))
        return [answer for answer in answers if answer.status_code != 200]

    eventually("one was too many", refused)
    for answer in refused():
        assert (answer.status_code, answer.json()["error"]["type"]) == (429, "overloaded")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert ask(guarded).status_code == 200


def metric(service: Service, name: str) -> float:
    """Return the sum of a metric over all labels."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    text = httpx.get(f"{service.settings.service_url}/metrics", headers=headers).text
    return sum(float(found) for found in re.findall(rf"^{name}\S* (\S+)$", text, re.MULTILINE))


def test_disconnected_client_leaves_the_queue(guarded: Service) -> None:
    def all_went(texts: int) -> bool:
        """Return whether three clients disconnected without being computed while a request of `texts` texts ran."""
        before = metric(guarded, "saebyeok_batch_rows_sum")
        names = [f"at-work-{texts}", *(f"waits-{texts}-{number}" for number in range(3))]
        with at_work(guarded, heavy(texts), names[0]):
            for name in names[1:]:
                # The queue has one place: each must leave it before the next one is accepted.
                Sender(guarded, heavy(2), name).leave()
                line_of(guarded, name)
        # Its client has gone, which is logged immediately; its thread finishes anyway.
        went = [line_of(guarded, name)["status"] for name in names] == [499] * 4
        eventually("it answers again", lambda: ask(guarded).status_code == 200)
        return went and metric(guarded, "saebyeok_batch_rows_sum") == before + texts + 1

    # Retry with more texts if the first request finished too early.
    assert all_went(10_000) or all_went(100_000)


@pytest.mark.slow
def test_slow_body_and_bentoml_error_share_the_format(tmp_path: Path, classifier: TinyModel) -> None:
    env = {
        "SAEBYEOK_WORKERS": "1",
        "SAEBYEOK_REQUEST_SECONDS": "1",
        # An operator's limit in BentoML's own middleware, outside ours.
        "BENTOML_CONFIG_OPTIONS": "services.Saebyeok.traffic.max_concurrency=1",
    }
    with serving(tmp_path, env, classifier) as service:
        url = f"{service.settings.service_url}/classify"
        refused: list[httpx.Response] = []

        def both_came() -> bool:
            # It occupies the only place until it times out: its body never arrives.
            with closing(connect(service)) as slow:
                slow.sendall(b"POST /classify HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
                assert slow.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
                refused[:] = [httpx.post(url, json=heavy(1), timeout=120)]
                answer = HTTPResponse(slow)
                answer.begin()
                assert (answer.status, json.loads(answer.read())["error"]["type"]) == (408, "too_slow")
            return refused[0].status_code != 200

        eventually("one was too many", both_came)
    assert (refused[0].status_code, refused[0].json()["error"]["type"]) == (429, "overloaded")
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].headers["x-request-id"]
