"""Error responses, and parsing of bodies with precise errors."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.responses import Response

from serving.schemas import ErrorType

#: Bodies with more keys are rejected with one error: a body with a million keys would cause a million errors.
MAX_KEYS = 16
#: Maximum characters of a message; a key may be as long as the body.
MAX_MESSAGE = 500

Model = TypeVar("Model", bound=BaseModel)


class ApiError(Exception):
    """An error that becomes an `ErrorResponse`."""

    def __init__(
        self, kind: ErrorType, message: str, index: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """`index` is the index of the text or pair that caused it; `headers` are added to the response."""
        super().__init__(message)
        self.kind = kind
        self.index = index
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the HTTP response."""
        error = {"type": self.kind, "message": str(self)[:MAX_MESSAGE], "index": self.index}
        content = json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":"))
        return Response(content, self.kind.status, self.headers, "application/json")


def unexpected() -> ApiError:
    """Return the error for an unexpected exception, whose details are only in the log."""
    return ApiError(ErrorType.INTERNAL, "an unexpected error; the service's log contains it under this request's id")


def parse(model: type[Model], body: bytes, others: Sequence[type[Model]] = ()) -> Model:
    """Parse `body` (JSON) as `model`, or as one of `others` if it has the first field of that model.

    Raises ApiError MALFORMED if it is not JSON, INVALID_REQUEST if it is invalid.
    """
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        mark = "; it begins with a byte order mark, so send it without one" if body.startswith(BOM_UTF8) else ""
        raise ApiError(ErrorType.MALFORMED, f"the body is not JSON: {error}{mark}") from error
    if isinstance(document, dict) and len(document) > MAX_KEYS:
        raise ApiError(ErrorType.INVALID_REQUEST, f"the body has {len(document)} keys; {_known_keys(model)}")
    if isinstance(document, dict):
        model = next((other for other in others if next(iter(other.model_fields)) in document), model)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _refusal(model, error) from error


def _refusal(model: type[BaseModel], error: ValidationError) -> ApiError:
    """Return an error with the first problem, the number of others, and the index of the text or pair."""
    details = error.errors()
    first: Any = details[0]
    where, problem = first["loc"], first["msg"]
    if first["type"] == "extra_forbidden":
        problem = f"unknown key; {_known_keys(model)}"
    name = ".".join(str(part) for part in where)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    index = next((part for part in where if isinstance(part, int)), None)
    return ApiError(ErrorType.INVALID_REQUEST, f"{name}: {problem}{more}" if name else f"{problem}{more}", index)


def _known_keys(model: type[BaseModel]) -> str:
    return f"allowed: {', '.join(model.model_fields)}"
