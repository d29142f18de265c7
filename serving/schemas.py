"""Requests and responses of the service as pydantic models, from which the OpenAPI document is generated."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.recipes.kinds.task_kind import Method

# Stop at the first invalid item: a body with a million of them would cause a million errors.
Texts = Annotated[list[str], FailFast()]
Pair = Annotated[list[str], FailFast(), Field(min_length=2, max_length=2)]
Pairs = Annotated[list[Pair], FailFast()]
RecipeName = Annotated[
    Annotated[str, Field(max_length=100)] | None,
    Field(description="may be omitted or null if only one deployed recipe fits"),
]


class Request(BaseModel):
    """A request body. Unknown keys are rejected, so that a misspelt key is not silently ignored.

    The limits on the number and length of inputs are settings: the service checks them, and its OpenAPI document
    contains them.
    """

    # Keep texts out of the logs.
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class ClassifyRequest(Request):
    """Texts or pairs of texts to classify; which of the two depends on the release."""

    texts: Texts = Field(default_factory=list, examples=[["정말 재미있는 영화였어요", "시간이 아까웠다"]])
    pairs: Pairs = Field(
        default_factory=list,
        examples=[[["오늘은 비가 온다", "오늘은 비가 내린다"]]],
        description="instead of `texts`, if the release classifies pairs (`inputs` in `/releases`)",
    )
    recipe: RecipeName = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if ("texts" in self.model_fields_set) == ("pairs" in self.model_fields_set):
            raise PydanticCustomError("one_of_both", "the body must have either `texts` or `pairs`")
        return self


class SimilarityRequest(Request):
    """Pairs of sentences to compare."""

    pairs: Pairs = Field(examples=[[["오늘은 비가 온다", "오늘은 비가 내린다"]]])
    recipe: RecipeName = None
    method: Method | None = Field(
        default=None,
        description="omitted or null: the release's default. A cross-encoder reads both sentences together; a "
        "bi-encoder compares their vectors by cosine or Euclidean distance. `/releases` lists the available methods",
    )


class ScoreRequest(Request):
    """Texts to score."""

    texts: Texts = Field(examples=[["정말 재미있는 영화였어요", "시간이 아까웠다"]])
    recipe: RecipeName = None


class EmbedRequest(Request):
    """Texts to embed."""

    texts: Texts = Field(examples=[["오늘은 비가 온다", "오늘은 비가 내린다"]])
    recipe: RecipeName = None


class ErrorType(StrEnum):
    """All error types (`error.type`) and their HTTP status."""

    status: int

    MALFORMED = "malformed", 400
    UNAUTHORIZED = "unauthorized", 401
    NOT_FOUND = "not_found", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    TOO_SLOW = "too_slow", 408
    CONFLICT = "conflict", 409
    TOO_LARGE = "too_large", 413
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415
    INVALID_REQUEST = "invalid_request", 422
    OVERLOADED = "overloaded", 429
    INTERNAL = "internal", 500
    UNAVAILABLE = "unavailable", 503
    TIMEOUT = "timeout", 504

    def __new__(cls, value: str, status: int) -> Self:
        """Create the member `value` with HTTP status `status`."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        return member

    @classmethod
    def of(cls, status: int) -> ErrorType:
        """Return the type for an HTTP status; for an unlisted status INTERNAL (5xx) or INVALID_REQUEST."""
        known = next((kind for kind in cls if kind.status == status), None)
        return known or (cls.INTERNAL if status >= 500 else cls.INVALID_REQUEST)


class ErrorBody(BaseModel):
    """Type, message and location of an error."""

    type: ErrorType
    message: str
    index: int | None = Field(
        default=None, description="index of the text or pair that caused the error, from 0; null if none did"
    )


class ErrorResponse(BaseModel):
    """The body of every error response."""

    error: ErrorBody


class StageRequest(Request):
    """A release to load in addition to the live ones."""

    release: Annotated[str, Field(max_length=500)] = Field(
        description="ref of the release in the store: release/<recipe>/<key>/<attempt>"
    )


class StagedResponse(BaseModel):
    """Refs of all releases that the workers must keep staged."""

    staged: list[str]


class ReadyResponse(BaseModel):
    """Readiness of the worker that answers."""

    deployment: int
    providers: dict[str, str] = Field(description="recipe to the execution provider that ONNX Runtime uses for it")
    follows: bool = Field(
        default=True,
        description="whether the worker can currently read the deployments; `/releases` gives the reason if not",
    )
