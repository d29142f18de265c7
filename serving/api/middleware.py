"""What every request goes through: its id, its line in the log, the one shape of errors, keys, limits and deadline."""

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

from serving.api.errors import ApiError, unexpected
from serving.api.logs import REQUEST_ID
from serving.api.request_body import CLOSE, ClientGoneError, check_media_type, read_body
from serving.schemas import ErrorType

log = logging.getLogger("saebyeok.requests")

REQUEST_ID_HEADER = "X-Request-Id"
#: A client's own id is taken if it looks like one.
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: Probes ask every few seconds; only what they do not like is logged.
PROBES = ("/livez", "/readyz", "/healthz", "/metrics")
#: Answered without a key: health, the OpenAPI document and the pages that call the rest.
OPEN = ("/", "/docs", "/docs.json", "/livez", "/readyz", "/healthz")
OPEN_BELOW = ("/static_content/", "/page/")
#: Routes that read a body.
BODIES = {(method, path) for method, path in [
    ("POST", "/classify"), ("POST", "/similarity"), ("POST", "/score"), ("POST", "/embed"),
    ("POST", "/releases/stage"), ("DELETE", "/releases/stage"),
]}  # fmt: skip
#: All that is answered but for what lies below `OPEN_BELOW`.
PATHS = frozenset({*OPEN, *(path for _, path in BODIES), "/releases", "/metrics", "/schema.json"})
#: Seconds after which it is looked whether the client is still there: most are answered by then.
LOOK_AFTER = 0.05
#: What nginx says in its logs of a client that has gone; nobody sees it.
GONE = 499
NOT_READY = "no deployment is loaded: deploy a release, then ask again; GET /releases says what is known"


@dataclass
class Exchange:
    """One request's answer as it goes out; errors that have another shape are kept back and put into the one."""

    scope: Scope
    receive: Receive
    send: Send
    id: str
    #: Whether the client waits to be asked for its body (`Expect: 100-continue`), and nobody has asked.
    unasked: bool
    status: int = 0
    started: Message | None = None
    kept: bytearray = field(default_factory=bytearray)

    async def ask(self) -> Message:
        """Return what the server receives next; it asks a client that waits for that."""
        self.unasked = False
        return await self.receive()

    async def pass_on(self, message: Message) -> None:
        """Send a message of the application, or keep it until the error is whole."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (REQUEST_ID_HEADER.lower().encode(), self.id.encode())]
            if self.unasked and Headers(raw=message["headers"]).get("connection") is None:
                # It may leave the body out, and the server would read its next request as that.
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
            error = _told(started["status"], body, self.scope["path"]).response()
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
    """Outermost ASGI middleware, around BentoML's own: ids, the log, and one shape for whatever anyone answers."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is the whole of BentoML's."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; what goes wrong there, and is not answered yet, is answered here."""
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
    """Innermost ASGI middleware: keys, media types, the size of bodies, the deadline, and clients that go away."""

    def __init__(self, app: ASGIApp, *, admit: Callable[[str | None], None], body_bytes: int, seconds: float) -> None:
        """`admit` raises ApiError unless an `Authorization` header opens the service; `seconds` is for a request."""
        self._app = app
        self._admit = admit
        self._body_bytes = body_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body whole and pass the request on, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except ApiError as error:
            await error.response()(scope, receive, send)
        except ClientGoneError:
            # It goes nowhere; BentoML's metrics and the log want an end.
            await send({"type": "http.response.start", "status": GONE, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["path"] not in OPEN and not scope["path"].startswith(OPEN_BELOW):
            self._admit(headers.get("authorization"))
        reading = (scope["method"], scope["path"]) in BODIES
        if reading:
            check_media_type(headers)
        patience = asyncio.timeout(self._seconds)
        watch: Watch | None = None
        try:
            async with patience:
                body = await read_body(receive, headers, self._body_bytes) if reading else None
                watch = Watch(receive, send)
                await watch.run(self._app, scope, body)
        except TimeoutError as error:
            if not patience.expired():
                raise
            if watch is None:
                text = f"the body was not there after {self._seconds:g} seconds"
                raise ApiError(ErrorType.TOO_SLOW, text, headers=CLOSE) from error
            # An answer that has begun cannot become another one: the server closes the connection.
            if not watch.begun:
                raise ApiError(ErrorType.TIMEOUT, f"no answer in {self._seconds:g} seconds") from error


class Watch:
    """Runs the application for one request, and cancels it when the client goes away before it is answered."""

    def __init__(self, receive: Receive, send: Send) -> None:
        """`receive` is the server's, with nothing left in it of a body that the application is to read."""
        self.begun = False
        self._gone = False
        self._receive = receive
        self._send = send
        self._looking: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp, scope: Scope, body: bytes | None) -> None:
        """Have `app` answer; `body` is what it reads, None where it reads none. Raises ClientGoneError."""
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
    # No secret, and the system's own randomness costs as much as reading the request.
    return given if SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def _is_shaped(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and isinstance(document.get("error"), dict)


def _told(status: int, body: bytes, path: str) -> ApiError:
    """What BentoML or Starlette answered, which is text, or JSON with `error`."""
    if path == "/readyz" and status == ErrorType.UNAVAILABLE.status:
        return ApiError(ErrorType.UNAVAILABLE, NOT_READY)
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = body.decode("utf-8", "replace").strip()
    document = document[0] if isinstance(document, list) and document else document
    if isinstance(document, dict):
        document = document.get("error", document)
    return ApiError(ErrorType.of(status), str(document) or "no details")


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
