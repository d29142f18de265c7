"""How the service sits in BentoML: its application without what costs much here and gives nothing, and our front."""

from __future__ import annotations

import logging
from typing import Generic, TypeVar, cast

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

from serving.api.errors import ApiError, parse, unexpected
from serving.api.middleware import PATHS, Front
from serving.api.protocol import use_protocol

Inner = TypeVar("Inner")

log = logging.getLogger(__name__)


class FrontedService(Service, Generic[Inner]):  # type: ignore[misc]
    """A service whose outermost middleware is ours, and whose application is `Application`."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """The ASGI application of a worker, which BentoML gives to uvicorn next."""
        self.inject_config()
        use_protocol()
        return Front(Application(self, is_main=is_main)())


class Counted:
    """BentoML's count of requests, of those to `PATHS`: it has a series for each path, and anyone can make up more."""

    def __init__(self, app: ASGIApp, *, count: Middleware) -> None:
        """`count` is what counts, around `app`."""
        self._app = app
        self._counted: ASGIApp = count.cls(app, *count.args, **count.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request where its path is known, and pass it on."""
        known = scope["type"] != "http" or scope["path"] in PATHS
        await (self._counted if known else self._app)(scope, receive, send)


class Application(ServiceAppFactory):  # type: ignore[misc]
    """BentoML's application: its routes, metrics, limits and context, but bodies are read and written by us.

    Every API takes one pydantic model and returns another.
    """

    @property
    def middlewares(self) -> list[Middleware]:
        """BentoML's, without a second deadline, a second line in the log, series without end and unread spans."""
        needless = {"TimeoutMiddleware", "AccessLogMiddleware"}
        if BentoMLContainer.config.tracing.exporter_type.get() is None:
            needless.add("OpenTelemetryMiddleware")
        return [
            Middleware(Counted, count=item) if item.cls.__name__ == "RunnerTrafficMetricsMiddleware" else item
            for item in super().middlewares
            if item.cls.__name__ not in needless
        ]

    async def readyz(self, request: Request) -> Response:
        """What the service says of its readiness, once BentoML finds it ready."""
        await super().readyz(request)
        ready: BaseModel = self._service_instance.readiness()
        return Response(to_json(ready), media_type="application/json")

    async def api_endpoint_wrapper(self, name: str, request: Request) -> Response:
        """The answer of the API `name`. Raises ApiError, which BentoML would answer in a shape of its own.

        BentoML would also log every wrong body with a traceback that has the texts in it.
        """
        api = self.service.apis[name]
        body = parse(api.input_spec, await request.body())
        try:
            answer: BaseModel = await api.func(self._service_instance, body, ctx=self.service.context)
        except ApiError:
            raise
        except Exception as error:
            log.exception("no answer")
            raise unexpected() from error
        return Response(to_json(answer), media_type="application/json")


class Posted(IOMixin):  # type: ignore[misc]
    """What tells BentoML, its documents and its clients that a body is the one argument."""

    __root_input__ = True


def posted(model: type[BaseModel]) -> type[Posted]:
    """The input of an API that takes a `model`."""
    return cast("type[Posted]", create_model(f"Posted{model.__name__}", __base__=(Posted, model)))
