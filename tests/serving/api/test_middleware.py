"""Middleware without a server: error format, limits, and disconnected clients."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.auth import KeyLimit
from serving.api.errors import ApiError
from serving.api.logs import REQUEST_ID
from serving.api.middleware import LOOK_AFTER, PATHS, UNKNOWN_ROUTES, Front, Gate
from serving.schemas import ErrorType

pytestmark = pytest.mark.asyncio

GONE: Message = {"type": "http.disconnect"}
Headers = Sequence[tuple[bytes, bytes]]


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


@dataclass
class AsgiExchange:
    """One request: its incoming messages and the sent ones. The client then stays silent."""

    path: str = "/classify"
    method: str = "POST"
    headers: Headers = ()
    messages: list[Message] = field(default_factory=lambda: [part(b"{}")])
    sent: list[Message] = field(default_factory=list)
    asked: int = 0
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def scope(self) -> Scope:
        return {"type": "http", "path": self.path, "method": self.method, "headers": list(self.headers)}

    async def receive(self) -> Message:
        self.asked += 1
        if self.messages:
            return self.messages.pop(0)
        self.looked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def through(self, app: ASGIApp) -> AsgiExchange:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def answered(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def error(self) -> tuple[int, str, str]:
        """Return status, type and message of an error response."""
        (error,) = json.loads(self.body).values()
        assert self.answered["content-type"] == "application/json"
        assert int(self.answered["content-length"]) == len(self.body)
        assert set(error) == {"type", "message", "index"}
        return self.status, error["type"], error["message"]


def answering(status: int, *parts: bytes, headers: Headers = ()) -> ASGIApp:
    """Return an application that sends this response in the given number of parts."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for number, body in enumerate(parts, start=1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(parts)})

    return app


async def ask_front(app: ASGIApp, **call: Any) -> AsgiExchange:
    return await AsgiExchange(**call).through(Front(app))


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_non_http_scope_is_passed_on(kind: str) -> None:
    seen: list[object] = []

    async def app(*given: object) -> None:
        seen.extend(given)

    scope, call = {"type": kind}, AsgiExchange()
    await Front(Gate(app, admit=refuse, body_bytes=0, seconds=0))(scope, call.receive, call.send)
    assert seen == [scope, call.receive, call.send]


@pytest.mark.parametrize("given", ["a", "night-7.a_B", "9" * 128])
async def test_request_id_that_looks_like_one_is_taken(given: str) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(REQUEST_ID.get())
        await answering(200, b"ok")(scope, receive, send)

    call = await ask_front(app, headers=[(b"x-request-id", given.encode())])
    assert (call.answered["x-request-id"], seen) == (given, [given])
    assert call.sent[0]["headers"] == [(b"x-request-id", given.encode())], "names are lower-case in ASGI"
    assert REQUEST_ID.get() == ""


@pytest.mark.parametrize("given", ["", "9" * 129, "a b", "a\tb", '"', "é", "a/b", "a\n"])
async def test_request_id_that_looks_like_none_is_made(given: str) -> None:
    headers = [(b"x-request-id", given.encode("latin-1"))] if given else []
    made = {(await ask_front(answering(200, b""), headers=headers)).answered["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", item) for item in made)


@pytest.mark.parametrize("status", [200, 204, 302, 399, 499])
async def test_successful_response_passes_unchanged(status: int) -> None:
    call = AsgiExchange()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status})
        assert len(call.sent) == 1
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
        assert len(call.sent) == 3

    await call.through(Front(app))
    assert (call.status, call.body, set(call.answered)) == (status, b"ab", {"x-request-id"})


async def test_error_is_buffered_until_complete() -> None:
    call = AsgiExchange()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"Not ", "more_body": True})
        assert call.sent == []
        await send({"type": "http.response.body", "body": b"Found"})

    await call.through(Front(app))
    assert call.error == (404, "not_found", "no such route; GET /docs lists the routes")
    assert [message["type"] for message in call.sent] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, b"hello", (400, "malformed", "hello")),
        (405, b" Method Not Allowed\n", (405, "method_not_allowed", UNKNOWN_ROUTES["Method Not Allowed"])),
        (429, b'{"error": "Too many requests"}', (429, "overloaded", "Too many requests")),
        (400, b'{"error": "x", "detail": [1]}', (400, "malformed", "x")),
        (500, b'[{"error": "first"}, {"error": "second"}]', (500, "internal", "first")),
        (500, b'["only a text"]', (500, "internal", "only a text")),
        (500, b"[]", (500, "internal", "[]")),
        (404, b'{"detail": "gone"}', (404, "not_found", "{'detail': 'gone'}")),
        (503, b"7", (503, "unavailable", "7")),
        (500, b"", (500, "internal", "no details")),
        (500, b" \n", (500, "internal", "no details")),
        (500, b"\xffx", (500, "internal", "\ufffdx")),
        (418, b"teapot", (422, "invalid_request", "teapot")),
        (502, b"bad gateway", (500, "internal", "bad gateway")),
    ],
)
async def test_foreign_error_is_converted(status: int, body: bytes, told: tuple[int, str, str]) -> None:
    headers = [(b"Content-Type", b"text/plain"), (b"content-length", b"99"), (b"Allow", b"POST")]
    call = await ask_front(answering(status, body, headers=headers))
    assert call.error == told
    assert len(call.sent[0]["headers"]) == len(call.answered), "each header once"
    assert call.answered["allow"] == "POST"
    assert call.answered["x-request-id"]


@pytest.mark.parametrize("status", [400, 418, 500])
async def test_error_of_the_one_shape_is_not_touched(status: int) -> None:
    body = b'{ "error": {"type": "mine"} }'
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    call = await ask_front(answering(status, body, headers=headers))
    assert (call.status, call.body, call.answered["content-type"]) == (status, body, "application/problem+json")


async def test_overload_always_has_retry_after() -> None:
    shaped = b'{"error": {}}'
    for body in (b"x", shaped):
        assert (await ask_front(answering(429, body))).answered["retry-after"] == "1"
        call = await ask_front(answering(429, body, headers=[(b"retry-after", b"7")]))
        assert call.answered["retry-after"] == "7"
        assert "retry-after" not in (await ask_front(answering(503, body))).answered


async def test_exception_response_has_no_details(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("비밀")

    call = await ask_front(app)
    assert call.error == (500, "internal", "an unexpected error; the service's log contains it under this request's id")
    assert REQUEST_ID.get() == ""
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


async def test_exception_behind_the_answer_adds_nothing_to_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(200, b"ok")(scope, receive, send)
        raise ValueError

    assert [message["type"] for message in (await ask_front(app)).sent] == ["http.response.start", "http.response.body"]


def line(caplog: pytest.LogCaptureFixture) -> dict[str, Any] | None:
    """Return the details of the only request in the log."""
    found = [record for record in caplog.records if record.getMessage() == "answered"]
    caplog.clear()
    if not found:
        return None
    (record,) = found
    assert (record.name, record.levelno) == ("saebyeok.requests", logging.INFO)
    return record.details  # type: ignore[attr-defined,no-any-return]


async def test_each_request_has_a_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    ids: list[str] = []
    monkeypatch.setattr(caplog.handler, "filters", [lambda record: ids.append(REQUEST_ID.get()) is None])
    clock = iter([10.0, 10.0123456] * 4)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    await ask_front(answering(200, b""), path="/" + "a" * 300, method="GET")
    assert line(caplog) == {"method": "GET", "route": "/" + "a" * 199, "status": 200, "milliseconds": 12.35}

    async def counts(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"inputs": 0}
        await answering(418, b"x")(scope, receive, send)

    await ask_front(counts)
    wanted = {"method": "POST", "route": "/classify", "status": 422, "milliseconds": 12.35, "inputs": 0}
    assert line(caplog) == wanted, "the status that was sent"
    assert [len(found) for found in ids] == [32, 32], "the formatter finds the request's id"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/health", "/metrics"])
async def test_probe_has_a_line_only_if_it_fails(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for status in (200, 399):
        await ask_front(answering(status, b""), path=path)
        assert line(caplog) is None
    for status in (400, 503):
        await ask_front(answering(status, b""), path=path)
        assert (line(caplog) or {})["status"] == status


EXPECT = [(b"expect", b"100-continue")]


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await answering(200, b"")(scope, receive, send)


@pytest.mark.parametrize("status", [200, 401, 404])
async def test_client_that_waits_in_vain_is_closed(status: int) -> None:
    assert (await ask_front(answering(status, b""), headers=EXPECT)).answered["connection"] == "close"
    assert "connection" not in (await ask_front(answering(status, b""))).answered
    closing = answering(status, b"", headers=[(b"connection", b"close")])
    headers = (await ask_front(closing, headers=EXPECT)).sent[0]["headers"]
    assert [name.lower() for name, _ in headers].count(b"connection") == 1


async def test_client_that_was_asked_for_its_body_stays() -> None:
    call = await ask_front(reading, headers=EXPECT)
    assert (call.asked, "connection" in call.answered) == (1, False)


#: Routes with a body, and all other paths of the service.
READ = [
    ("POST", "/classify"), ("POST", "/similarity"), ("POST", "/score"), ("POST", "/embed"),
    ("POST", "/v1/embeddings"), ("POST", "/predict"), ("POST", "/releases/stage"), ("DELETE", "/releases/stage"),
]  # fmt: skip
OTHERS = {
    "/", "/docs", "/docs.json", "/livez", "/readyz", "/healthz", "/health", "/releases", "/v1/models", "/info",
    "/metrics", "/schema.json",
}  # fmt: skip


async def test_counted_paths_are_the_routes_of_the_service() -> None:
    assert {path for _, path in READ} | OTHERS == PATHS


def refuse(header: str | None) -> None:
    raise ApiError(ErrorType.UNAUTHORIZED, f"it was {header}", headers={"WWW-Authenticate": "Bearer"})


def gate(
    app: ASGIApp,
    admit: Callable[[str | None], None] = lambda header: None,
    seconds: float = 60,
    limit: KeyLimit | None = None,
) -> Gate:
    return Gate(app, admit=admit, body_bytes=10, seconds=seconds, limit=limit)


async def test_key_may_have_only_so_many_requests_at_once() -> None:
    go, running = asyncio.Event(), asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        running.set()
        await go.wait()
        await answering(200, b"{}")(scope, receive, send)

    inner = gate(waiting, limit=KeyLimit(1))

    async def ask(key: str, method: str = "POST", path: str = "/classify") -> AsgiExchange:
        headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
        return await AsgiExchange(path, method, headers=headers).through(inner)

    first = asyncio.create_task(ask("one"))
    await running.wait()
    # Without the limit it would wait, too.
    assert (await asyncio.wait_for(ask("one"), 10)).error[:2] == (429, "overloaded")
    others = [asyncio.create_task(ask("two")), asyncio.create_task(ask("one", "GET", "/releases"))]
    await asyncio.sleep(0)
    go.set()
    assert [(await call).status for call in (first, *others)] == [200, 200, 200]
    # Its place is free again.
    assert (await ask("one")).status == 200


async def test_without_a_limit_a_key_has_many_requests() -> None:
    go, running = asyncio.Event(), list[Scope]()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        running.append(scope)
        await go.wait()
        await answering(200, b"{}")(scope, receive, send)

    inner = gate(waiting)
    calls = [AsgiExchange(headers=[(b"authorization", b"Bearer one")]) for _ in range(2)]
    tasks = [await run(call.through(inner)) for call in calls]
    assert len(running) == 2
    go.set()
    await asyncio.gather(*tasks)
    assert [call.status for call in calls] == [200, 200]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the first message of the body."""
    message = await receive()
    await answering(200, message["body"] + b"|%r" % message["more_body"])(scope, receive, send)


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/docs.json", "/livez", "/readyz", "/healthz", "/health", "/static_content/x.css", "/page/page.js"],
)
async def test_gate_is_open_for_health_and_pages(path: str) -> None:
    call = await AsgiExchange(path, "GET").through(gate(answering(200, b"ok"), refuse))
    assert (call.status, call.body) == (200, b"ok")


@pytest.mark.parametrize(
    "path",
    ["/classify", "/releases", "/metrics", "/schema.json", "/docs/x", "/page", "/static_content", "//", "/livez/"],
)
async def test_gate_asks_for_a_key_elsewhere(path: str) -> None:
    call = await AsgiExchange(path, headers=[(b"authorization", b"Bearer x")]).through(
        gate(answering(200, b"ok"), refuse)
    )
    assert call.error == (401, "unauthorized", "it was Bearer x")
    assert call.answered["www-authenticate"] == "Bearer"
    assert call.asked == 0
    assert (await AsgiExchange(path).through(gate(echo, refuse))).error == (401, "unauthorized", "it was None")


@pytest.mark.parametrize(("method", "path"), READ)
async def test_gate_reads_bodies_of_routes_with_a_body(method: str, path: str) -> None:
    call = await AsgiExchange(path, method, messages=[part(b"ab", more=True), part(b"c")]).through(gate(echo))
    assert call.body == b"abc|False"
    call = await AsgiExchange(path, method, messages=[part(bytes(11))]).through(gate(echo))
    assert call.error == (413, "too_large", "the body is larger than 10 bytes")
    call = await AsgiExchange(path, method, headers=[(b"content-type", b"text/plain")]).through(gate(echo))
    assert call.status == 415


@pytest.mark.parametrize(("method", "path"), [("GET", "/classify"), ("PUT", "/classify"), ("POST", "/releases")])
async def test_gate_leaves_other_bodies_to_the_application(method: str, path: str) -> None:
    call = AsgiExchange(path, method, [(b"content-type", b"text/plain")], [part(bytes(11), more=True)])
    assert (await call.through(gate(echo))).body == bytes(11) + b"|True"


async def test_gate_gives_a_body_once() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])

    await AsgiExchange(messages=[part(b"a"), GONE]).through(gate(app))
    assert seen == [part(b"a"), GONE]


async def test_missing_body_is_too_slow() -> None:
    for messages in ([], [part(b"a", more=True)]):
        call = await AsgiExchange(messages=messages).through(gate(echo, seconds=0.02))
        assert call.error == (408, "too_slow", "the body did not arrive within 0.02 seconds")
        assert call.answered["connection"] == "close"


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def test_missing_response_is_a_timeout() -> None:
    call = await AsgiExchange().through(gate(waits, seconds=0.02))
    assert call.error == (504, "timeout", "no response within 0.02 seconds")
    assert "connection" not in call.answered
    # Without a body only the application can be slow.
    assert (await AsgiExchange(method="GET").through(gate(waits, seconds=0.02))).status == 504


async def test_answer_that_has_begun_is_no_timeout() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await waits(scope, receive, send)

    call = await AsgiExchange().through(gate(app, seconds=0.02))
    assert [message["type"] for message in call.sent] == ["http.response.start"]


async def test_timeout_of_the_application_is_not_the_gates() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise TimeoutError("of a database")

    with pytest.raises(TimeoutError, match="of a database"):
        await AsgiExchange().through(gate(app))


def went(call: AsgiExchange) -> bool:
    """Return whether the server got the response that ends an abandoned request."""
    start = {"type": "http.response.start", "status": 499, "headers": []}
    return call.sent == [start, {"type": "http.response.body", "body": b""}]


@pytest.mark.parametrize("messages", [[GONE], [part(b"a", more=True), GONE]])
async def test_client_disconnecting_while_sending_gets_no_response(messages: list[Message]) -> None:
    assert went(await AsgiExchange(messages=messages).through(gate(echo)))


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_client_disconnecting_while_waiting_cancels_the_work(method: str) -> None:
    ended: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await waits(scope, receive, send)
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    # Other messages are not a disconnect, such as the unread body of a GET.
    messages = [part(b"{}"), part(b"x", more=True), part(b"y"), GONE]
    call = await AsgiExchange(method=method, messages=messages).through(gate(app))
    assert went(call)
    assert len(ended) == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def run(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Return a started task."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    return task


async def test_server_shutdown_is_not_a_disconnect() -> None:
    call = AsgiExchange()
    task = await run(call.through(gate(waits)))
    await call.looked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.sent == []


async def test_client_that_only_sends_on_is_answered() -> None:
    go = asyncio.Event()
    call = AsgiExchange(messages=[part(b"{}"), part(b"x", more=True), part(b"y")])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answering(200, b"ok")(scope, receive, send)

    task = await run(call.through(gate(app)))
    await asyncio.wait_for(call.looked.wait(), 30)
    go.set()
    await task
    assert (call.status, call.body) == (200, b"ok")


def lookers() -> int:
    """Return the number of tasks that wait for a disconnect."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return names.count("DisconnectWatch._wait")


async def settled() -> int:
    """Return the number of such tasks after cancelled ones have ended."""
    for _ in range(3):
        await asyncio.sleep(0)
    return lookers()


async def test_started_response_ends_the_disconnect_check() -> None:
    left: list[int] = []

    class Busy(AsgiExchange):
        async def send(self, message: Message) -> None:
            left.append(await settled())
            await super().send(message)

    call = Busy()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await call.looked.wait()
        left.append(lookers())
        await answering(200, b"ok")(scope, receive, send)

    assert (await call.through(gate(app))).body == b"ok"
    assert left == [1, 0, 0]


async def test_failed_application_ends_the_disconnect_check() -> None:
    call = AsgiExchange()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await call.looked.wait()
        raise ApiError(ErrorType.NOT_FOUND, "no")

    assert (await call.through(gate(app))).error == (404, "not_found", "no")
    assert await settled() == 0


async def begins(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(2 * LOOK_AFTER)
    await send({"type": "http.response.body", "body": b"ok"})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError(ErrorType.NOT_FOUND, "no")


@pytest.mark.parametrize("app", [echo, begins, fails])
async def test_quick_response_needs_no_disconnect_check(app: ASGIApp) -> None:
    call = await AsgiExchange().through(gate(app))
    await asyncio.sleep(2 * LOOK_AFTER)
    assert call.asked == 1
