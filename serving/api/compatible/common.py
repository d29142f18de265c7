"""What the APIs of other servers have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from serving.api.errors import ApiError
from serving.engine.session import Floats
from serving.schemas import ErrorType, Texts


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


#: One text or a list of texts, as a list; token ids are not supported. The OpenAPI document adds the limits.
TextOrTexts = Annotated[Texts, BeforeValidator(_listed), WithJsonSchema({})]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: A whole number, and one of at least 1; JSON also writes them as 3.0.
Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]


def check_dimensions(wanted: int | None, vectors: Floats) -> None:
    """Raise ApiError if a request asks for another number of dimensions than `vectors` (texts, hidden) have."""
    have = vectors.shape[1]
    if wanted not in (None, have):
        text = f"no vectors of {wanted} dimensions: those of this model have {have}, and cannot be shortened"
        raise ApiError(ErrorType.NOT_FOUND, text)
