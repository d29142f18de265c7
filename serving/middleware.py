"""One shape for every error, whoever raised it."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import bentoml
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.schemas import ErrorBody, ErrorResponse

TYPES = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    415: "unsupported_media_type",
    429: "overloaded",
    503: "unavailable",
    504: "timeout",
}
NOT_READY = "no deployment is loaded: deploy a release, then ask again; GET /releases says what is known"

P = ParamSpec("P")
R = TypeVar("R")


class ApiError(Exception):
    """An error with its HTTP status, to be answered in the one shape."""

    def __init__(self, status: int, message: str, index: int | None = None) -> None:
        """`index` is the text or pair that it is about."""
        super().__init__(message)
        self.status = status
        self.index = index

    def response(self) -> JSONResponse:
        """The error as an HTTP answer."""
        return error_response(self.status, str(self), self.index)


def error_response(status: int, message: str, index: int | None = None) -> JSONResponse:
    """An error in the one shape; its type follows from the status."""
    kind = TYPES.get(status, "internal" if status >= 500 else "invalid_request")
    body = ErrorResponse(error=ErrorBody(type=kind, message=message, index=index))
    return JSONResponse(body.model_dump(), status_code=status)


def answers_errors(method: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Let a BentoML method raise ApiError: BentoML itself would hide the text of most."""

    @functools.wraps(method)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return await method(*args, **kwargs)
        except ApiError as error:
            # BentoML writes the context's status over that of the response.
            context: bentoml.Context = kwargs["ctx"]  # type: ignore[assignment]
            context.response.status_code = error.status
            return error.response()

    return wrapper


class ErrorShape:
    """ASGI middleware: rewrites the body of every error that is not in the one shape yet."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is the rest of the service."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and look at the status of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started: Message | None = None
        body = b""

        async def look(message: Message) -> None:
            nonlocal started, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                started = message
            elif started is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _reshape(started, body, scope["path"])(scope, receive, send)

        await self._app(_as_json(scope), receive, look)


def _as_json(scope: Scope) -> Scope:
    """`curl -d` says form data of what is JSON; there are no forms here."""
    form = (b"content-type", b"application/x-www-form-urlencoded")
    if form not in scope["headers"]:
        return scope
    return {**scope, "headers": [(b"content-type", b"application/json") if h == form else h for h in scope["headers"]]}


def _reshape(started: Message, body: bytes, path: str) -> Response:
    status = started["status"]
    if status == 503 and path.endswith("/readyz"):
        return error_response(status, NOT_READY)
    try:
        document = json.loads(body)
    except ValueError:
        document = body.decode("utf-8", "replace").strip()
    document = document[0] if isinstance(document, list) and document else document
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        return Response(body, status, media_type="application/json")
    response = error_response(status, *_explain(document))
    for name, value in started["headers"]:
        if name.lower() not in (b"content-length", b"content-type"):
            response.raw_headers.append((name, value))
    return response


def _explain(document: Any) -> tuple[str, int | None]:
    """Message and index from what BentoML or Starlette answered."""
    if not isinstance(document, dict):
        return str(document) or "no details", None
    details = document.get("detail")
    if not details:
        return str(document.get("error", document)), None
    first = details[0]
    where = first["loc"]
    index = next((part for part in where if isinstance(part, int)), None)
    name = ".".join(str(part) for part in where)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{name}: {first['msg']}{more}" if name else f"{first['msg']}{more}", index
