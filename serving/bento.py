"""How the routes sit in BentoML: what it would answer in shapes of its own is answered here."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import bentoml
from _bentoml_sdk import Service
from _bentoml_sdk.io_models import IOMixin
from pydantic import BaseModel, create_model
from starlette.requests import Request
from starlette.types import ASGIApp

from serving.errors import ApiError, parse
from serving.middleware import Front

Model = TypeVar("Model", bound=BaseModel)
Inner = TypeVar("Inner")
R = TypeVar("R")
P = ParamSpec("P")


class FrontedService(Service, Generic[Inner]):  # type: ignore[misc]
    """A service whose outermost middleware is ours, around BentoML's own limits."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """The ASGI application of a worker."""
        return Front(super().to_asgi(is_main))


@dataclass(frozen=True)
class Unread:
    """A body as it came."""

    body: bytes


class Posted(IOMixin):  # type: ignore[misc]
    """What BentoML is told of a body: its schema, and that it is not BentoML who reads it.

    It would answer 400 with every single error, and log each with a traceback that has the texts in it.
    """

    __root_input__ = True

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Unread:
        """The body, unread."""
        return Unread(await request.body())


def posted(model: type[BaseModel]) -> type[Posted]:
    """The input of a route that takes a `model`."""
    return cast("type[Posted]", create_model(f"Posted{model.__name__}", __base__=(Posted, model)))


def answers(
    model: type[Model],
) -> Callable[[Callable[Concatenate[Any, Model, P], Awaitable[R]]], Callable[..., Awaitable[Any]]]:
    """Let a method of BentoML take a `model` and raise ApiError, whose text BentoML would hide."""

    def decorate(method: Callable[Concatenate[Any, Model, P], Awaitable[R]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def wrapper(self: Any, body: Model | Unread, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                read = parse(model, body.body) if isinstance(body, Unread) else body
                return await method(self, read, *args, **kwargs)
            except ApiError as error:
                # BentoML writes the context's status over that of the response.
                context = cast("bentoml.Context", kwargs["ctx"])
                context.response.status_code = error.kind.status
                return error.response()

        return wrapper

    return decorate
