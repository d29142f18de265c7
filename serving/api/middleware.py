"""Middleware for every request: request id, access log, error format, API keys, limits and timeout."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.auth import KeyLimit
from serving.api.errors import ApiError, unexpected
from serving.api.logs import REQUEST_ID
from serving.api.request_body import CLOSE, ClientGoneError, check_media_type, read_body
from serving.schemas import ErrorType

log = logging.getLogger("saebyeok.requests")

REQUEST_ID_HEADER = "X-Request-Id"
SERVER_TIMING_HEADER = "Server-Timing"
#: Pattern of ids that are accepted from clients.
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: Called every few seconds; only their errors are logged.
PROBES = ("/livez", "/readyz", "/healthz", "/health", "/metrics")
#: Paths without API keys: health, the OpenAPI document and the pages.
OPEN_PATHS = ("/", "/docs", "/docs.json", "/livez", "/readyz", "/healthz", "/health")
OPEN_BELOW = ("/static_content/", "/page/")
#: Routes with a request body.
BODIES = {(method, path) for method, path in [
    ("POST", "/classify"), ("POST", "/similarity"), ("POST", "/score"), ("POST", "/embed"),
    ("POST", "/v1/embeddings"), ("POST", "/predict"), ("POST", "/releases/stage"), ("DELETE", "/releases/stage"),
]}  # fmt: skip
#: All known paths, except those below `OPEN_BELOW`.
PATHS = frozenset(
    {*OPEN_PATHS, *(path for _, path in BODIES), "/releases", "/v1/models", "/info", "/metrics", "/schema.json"}
)
#: Seconds before the first check for a disconnected client; most requests are answered by then.
LOOK_AFTER = 0.05
#: nginx's status for a client that closed the connection; only the log and the metrics contain it.
GONE = 499

#: Starlette's errors for unknown routes, and the text that replaces them.
UNKNOWN_ROUTES = {
    "Not Found": "no such route; GET /docs lists the routes",
    "Method Not Allowed": "this route does not support the method; GET /docs lists the routes with their methods",
}


@dataclass
class Exchange:
    """The response to one request; errors in another format are buffered and converted to `ErrorResponse`."""

    scope: Scope
    receive: Receive
    send: Send
    id: str
    #: Whether the client waits for `100 Continue` before it sends its body, and has not been asked for it.
    unasked: bool
    status: int = 0
    started: Message | None = None
    kept: bytearray = field(default_factory=bytearray)

    async def ask(self) -> Message:
        """Return the next message from the server, which sends `100 Continue` to a waiting client."""
        self.unasked = False
        return await self.receive()

    async def pass_on(self, message: Message) -> None:
        """Send a message of the application, or buffer it until the error is complete."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID_HEADER.lower().encode(), self.id.encode())]
            if self.unasked and Headers(raw=message["headers"]).get("connection") is None:
                # The client may omit the body; the server would then read its next request as the body.
                message["headers"].append((b"connection", b"close"))
            if self.status >= 400 and self.status != GONE:
                self.started = message
                return
        elif self.started is not None:
            self.kept += message.get("body", b"")
            if not message.get("more_body", False):
                await self._reshape(self.started, bytes(self.kept))
            return
        await self.send(message)

    async def _reshape(self, started: Message, body: bytes) -> None:
        if not _is_shaped(body):
            error = _told(started["status"], body).response()
            body = bytes(error.body)
            ours = {b"content-length", b"content-type"}
            others = [(name, value) for name, value in started["headers"] if name.lower() not in ours]
            started = {**started, "status": error.status_code, "headers": [*others, *error.raw_headers]}
        self.status = started["status"]
        if self.status == ErrorType.OVERLOADED.status and Headers(raw=started["headers"]).get("retry-after") is None:
            started["headers"].append((b"retry-after", b"1"))
        await self.send(started)
        await self.send({"type": "http.response.body", "body": body})


class Front:
    """Outermost ASGI middleware, around BentoML's own: request ids, access log, and one format for all errors."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is BentoML's complete application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; respond to an exception if no response has started."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        waits = any(name == b"expect" for name, _ in scope["headers"])
        exchange = Exchange(scope, receive, send, _request_id(scope), unasked=waits)
        token = REQUEST_ID.set(exchange.id)
        try:
            await self._app(scope, exchange.ask if waits else receive, exchange.pass_on)
        except Exception:
            log.exception("no answer")
            if exchange.status == 0:
                await unexpected().response()(scope, receive, exchange.pass_on)
        finally:
            _write_line(scope, exchange, time.perf_counter() - began)
            REQUEST_ID.reset(token)


class Gate:
    """Innermost ASGI middleware: API keys, media types, body size, timeout, and disconnected clients."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        admit: Callable[[str | None], None],
        body_bytes: int,
        seconds: float,
        limit: KeyLimit | None = None,
    ) -> None:
        """`admit` raises ApiError unless an `Authorization` header grants access; `seconds` is the request timeout.

        `limit` applies to requests with a body.
        """
        self._app = app
        self._admit = admit
        self._limit = limit or KeyLimit(0)
        self._body_bytes = body_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the complete body and pass the request on, or respond with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except ApiError as error:
            await error.response()(scope, receive, send)
        except ClientGoneError:
            # Nobody receives this; BentoML's metrics and the log need an end of the request.
            await send({"type": "http.response.start", "status": GONE, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["path"] not in OPEN_PATHS and not scope["path"].startswith(OPEN_BELOW):
            self._admit(headers.get("authorization"))
        if (scope["method"], scope["path"]) in BODIES:
            check_media_type(headers)
            with self._limit.counted(headers.get("authorization")):
                await self._run(scope, receive, send, headers)
        else:
            await self._run(scope, receive, send, None)

    async def _run(self, scope: Scope, receive: Receive, send: Send, headers: Headers | None) -> None:
        """Pass the request on within the time limit; with `headers`, after its body has been read."""
        patience = asyncio.timeout(self._seconds)
        watch: DisconnectWatch | None = None
        try:
            async with patience:
                body = await read_body(receive, headers, self._body_bytes) if headers is not None else None
                watch = DisconnectWatch(receive, send)
                await watch.run(self._app, scope, body)
        except TimeoutError as error:
            if not patience.expired():
                raise
            if watch is None:
                text = f"the body did not arrive within {self._seconds:g} seconds"
                raise ApiError(ErrorType.TOO_SLOW, text, headers=CLOSE) from error
            # A response that has started cannot be replaced: the server closes the connection.
            if not watch.begun:
                raise ApiError(ErrorType.TIMEOUT, f"no response within {self._seconds:g} seconds") from error


class DisconnectWatch:
    """Run the application for one request, and cancel it if the client disconnects before the response."""

    def __init__(self, receive: Receive, send: Send) -> None:
        """`receive` is the server's, after the body has been read from it."""
        self.begun = False
        self._gone = False
        self._receive = receive
        self._send = send
        self._looking: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp, scope: Scope, body: bytes | None) -> None:
        """Run `app` with `body` (None: no body). Raises ClientGoneError if the client disconnects."""
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(LOOK_AFTER, self._look, task)
        waiting: list[Message] = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await self._receive()

        try:
            await app(scope, replay, self._answer)
        except asyncio.CancelledError:
            if not self._gone:
                raise
            task.uncancel()
            raise ClientGoneError from None
        finally:
            timer.cancel()
            self._stop()

    async def _answer(self, message: Message) -> None:
        self.begun = True
        self._stop()
        await self._send(message)

    def _look(self, task: asyncio.Task[None]) -> None:
        if not self.begun:
            self._looking = asyncio.create_task(self._wait(task))

    async def _wait(self, task: asyncio.Task[None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        task.cancel()

    def _stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    # Not a secret; the system's random generator would take as long as reading the request.
    return given if SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def _is_shaped(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and isinstance(document.get("error"), dict)


def _told(status: int, body: bytes) -> ApiError:
    """Return the error for a response of BentoML or Starlette, whose body is text, or JSON with `error`."""
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = body.decode("utf-8", "replace").strip()
    document = document[0] if isinstance(document, list) and document else document
    if isinstance(document, dict):
        document = document.get("error", document)
    text = str(document) or "no details"
    return ApiError(ErrorType.of(status), UNKNOWN_ROUTES.get(text, text))


def _write_line(scope: Scope, exchange: Exchange, seconds: float) -> None:
    path = scope["path"]
    if path in PROBES and exchange.status < 400:
        return
    details: dict[str, Any] = {
        "method": scope["method"],
        "route": path[:200],
        "status": exchange.status,
        "milliseconds": round(1000 * seconds, 2),
    }
    inputs = scope.get("state", {}).get("inputs")
    if inputs is not None:
        details["inputs"] = inputs
    log.info("answered", extra={"details": details})
