"""Integration with BentoML: its application without expensive, unused middleware, behind Saebyeok's own."""

from __future__ import annotations

import asyncio
import gzip
import logging
from dataclasses import fields
from typing import ClassVar, Generic, TypeVar, cast

from _bentoml_impl.server.app import ServiceAppFactory
from _bentoml_sdk import Service
from _bentoml_sdk.io_models import IOMixin
from bentoml._internal.configuration.containers import BentoMLContainer
from pydantic import BaseModel, create_model
from pydantic_core import to_json
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.settings import load_settings
from serving.api.cors import with_cors
from serving.api.errors import ApiError, parse, unexpected
from serving.api.middleware import PATHS, SERVER_TIMING_HEADER, Front
from serving.api.protocol import use_protocol
from serving.client.responses import DEPLOYMENT_HEADER
from serving.engine.engine import Timing

Inner = TypeVar("Inner")

log = logging.getLogger(__name__)

#: Bytes from which a response is compressed: about ten vectors.
LONG = 64 * 1024
#: Weights with which a client refuses an encoding.
REFUSED = ("0", "0.", "0.0", "0.00", "0.000")


class FrontedService(Service, Generic[Inner]):  # type: ignore[misc]
    """A BentoML service with `Front` as its outermost middleware and `Application` as its application."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the ASGI application of a worker, which BentoML passes to uvicorn."""
        self.inject_config()
        use_protocol()
        return with_cors(Front(Application(self, is_main=is_main)()), load_settings().cors_origins)


class Counted:
    """Limit BentoML's request metrics to `PATHS`: it keeps a series per path, and clients can invent paths."""

    def __init__(self, app: ASGIApp, *, count: Middleware) -> None:
        """Wrap `app`; `count` is BentoML's middleware that counts requests."""
        self._app = app
        self._counted: ASGIApp = count.cls(app, *count.args, **count.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it if its path is known."""
        known = scope["type"] != "http" or scope["path"] in PATHS
        await (self._counted if known else self._app)(scope, receive, send)


class Application(ServiceAppFactory):  # type: ignore[misc]
    """BentoML's application with its routes, metrics, limits and context; Saebyeok reads and writes the bodies.

    Every API takes one pydantic model and returns another.
    """

    @property
    def middlewares(self) -> list[Middleware]:
        """BentoML's middlewares without its timeout, access log, unlimited metric series and unused tracing."""
        needless = {"TimeoutMiddleware", "AccessLogMiddleware"}
        if BentoMLContainer.config.tracing.exporter_type.get() is None:
            needless.add("OpenTelemetryMiddleware")
        return [
            Middleware(Counted, count=item) if item.cls.__name__ == "RunnerTrafficMetricsMiddleware" else item
            for item in super().middlewares
            if item.cls.__name__ not in needless
        ]

    async def readyz(self, request: Request) -> Response:
        """Return the service's readiness, after BentoML's own check."""
        await super().readyz(request)
        ready: BaseModel = self._service_instance.readiness()
        return Response(to_json(ready), media_type="application/json")

    async def api_endpoint_wrapper(self, name: str, request: Request) -> Response:
        """Return the response of the API `name`. Raises ApiError if the body is invalid or computing fails.

        BentoML's own wrapper would answer errors in another format, and log invalid bodies including their texts.
        """
        api = self.service.apis[name]
        body = parse(api.input_spec, await request.body(), api.input_spec.others)
        try:
            answer: BaseModel = await api.func(self._service_instance, body, ctx=self.service.context)
        except ApiError:
            raise
        except Exception as error:
            log.exception("no answer")
            raise unexpected() from error
        return await respond(request, to_json(answer))


async def respond(request: Request, body: bytes) -> Response:
    """Return a response with this JSON, the request's timing and its deployment.

    A long response is compressed if the client accepts it.
    """
    timing: Timing | None = getattr(request.state, "timing", None)
    headers = {SERVER_TIMING_HEADER: _timing(timing)} if timing else {}
    if (number := getattr(request.state, "deployment", None)) is not None:
        headers[DEPLOYMENT_HEADER] = str(number)
    if len(body) >= LONG:
        headers["Vary"] = "Accept-Encoding"
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            # In a thread, because other requests would wait for it.
            body = await asyncio.to_thread(gzip.compress, body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type="application/json")


def accepts_gzip(header: str) -> bool:
    """Return whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    offers = (item.partition(";q=") for item in header.replace(" ", "").lower().split(","))
    weights = {name: weight for name, _, weight in offers}
    weight = weights.get("gzip", weights.get("*"))
    return weight is not None and weight not in REFUSED


def _timing(timing: Timing) -> str:
    """Return the value of a Server-Timing header, in milliseconds."""
    return ", ".join(f"{item.name};dur={1000 * getattr(timing, item.name):.2f}" for item in fields(timing))


class Posted(IOMixin):  # type: ignore[misc]
    """Base of input models: tells BentoML, its documents and its clients that the body is the only argument."""

    __root_input__ = True
    others: ClassVar[tuple[type[BaseModel], ...]] = ()


def posted(model: type[BaseModel], *others: type[BaseModel]) -> type[Posted]:
    """Return the input specification of an API that takes a `model`, or one of `others` (clients of other servers)."""
    found = cast("type[Posted]", create_model(f"Posted{model.__name__}", __base__=(Posted, model)))
    found.others = others
    return found


def answered(model: type[BaseModel]) -> type[IOMixin]:
    """Return the output specification of an API that returns a `model`, or another one to clients of other servers.

    BentoML cannot describe a choice of several models, and describes each API when it builds a Bento.
    """
    return create_model(f"Answered{model.__name__}", __base__=(IOMixin, model))
