"""What the service answers where it has no answer, and how a body is read so that it can say why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.responses import Response

from serving.schemas import ErrorType

#: More keys than this in a body are not told one by one: a body of nothing but keys would be a million errors.
MAX_KEYS = 16
#: Characters of a message; a key may be as long as the body.
MAX_MESSAGE = 500

Model = TypeVar("Model", bound=BaseModel)


class ApiError(Exception):
    """An error to be answered in the one shape."""

    def __init__(
        self, kind: ErrorType, message: str, index: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """`index` is the text or pair that it is about, `headers` are more of the answer's."""
        super().__init__(message)
        self.kind = kind
        self.index = index
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The error as an HTTP answer."""
        error = {"type": self.kind, "message": str(self)[:MAX_MESSAGE], "index": self.index}
        content = json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":"))
        return Response(content, self.kind.status, self.headers, "application/json")


def unexpected() -> ApiError:
    """What a client is told of an exception, which the log has."""
    return ApiError(ErrorType.INTERNAL, "an unexpected error; the log has it under this request's id")


def parse(model: type[Model], body: bytes) -> Model:
    """The JSON of `body` as `model`. Raises ApiError MALFORMED (no JSON) or INVALID_REQUEST (it does not fit)."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(ErrorType.MALFORMED, f"the body is not JSON: {error}") from error
    if isinstance(document, dict) and len(document) > MAX_KEYS:
        raise ApiError(ErrorType.INVALID_REQUEST, f"the body has {len(document)} keys: {_known_keys(model)}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _refusal(model, error) from error


def _refusal(model: type[BaseModel], error: ValidationError) -> ApiError:
    """What is wrong first, and the text or pair that it is wrong with."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first: Any = details[0]
    where, problem = first["loc"], first["msg"]
    if first["type"] == "extra_forbidden":
        problem = f"there is no such key; {_known_keys(model)}"
    name = ".".join(str(part) for part in where)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    index = next((part for part in where if isinstance(part, int)), None)
    return ApiError(ErrorType.INVALID_REQUEST, f"{name}: {problem}{more}" if name else f"{problem}{more}", index)


def _known_keys(model: type[BaseModel]) -> str:
    return f"it may have {', '.join(model.model_fields)}"
