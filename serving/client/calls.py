"""A call of the service: what is sent, when it is sent again, and what its answer means. Nothing here does I/O."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from pipeline.errors import RefusedError, SaebyeokError, ServiceError
from serving.schemas import (
    ClassifyResponse,
    EmbedResponse,
    ErrorResponse,
    Method,
    ReleasesResponse,
    ScoreResponse,
    SimilarityResponse,
)

Model = TypeVar("Model", bound=BaseModel)
#: What came of one attempt.
Outcome = httpx.Response | httpx.RequestError


class CallError(SaebyeokError):
    """The service answered with an error."""

    def __init__(self, text: str, *, status: int, type: str, message: str, index: int | None) -> None:
        """`type`, `message` and `index` (of the text or pair, from 0) are the service's, `status` is HTTP's."""
        super().__init__(text)
        self.status = status
        self.type = type
        self.message = message
        self.index = index


class RefusedCallError(CallError, RefusedError):
    """The service refuses the request (400, 401, 404, ...), and would again."""


class FailedCallError(CallError, ServiceError):
    """The service is overloaded or broken (429, 5xx), also after the last attempt; a later call may succeed."""


class NoAnswerError(ServiceError):
    """Nothing answered, or not in time, or not as Saebyeok does."""


@dataclass(frozen=True)
class Call(Generic[Model]):
    """One request. Each may be sent again: none of them does more the second time."""

    method: str
    path: str
    answer: type[Model]
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def read(self, url: str, outcome: Outcome) -> Model:
        """The answer that came from `url`. Raises RefusedCallError, FailedCallError or NoAnswerError."""
        place = f"{url}{self.path}"
        if isinstance(outcome, httpx.TimeoutException):
            raise NoAnswerError(f"{place} did not answer in time") from outcome
        if isinstance(outcome, httpx.RequestError):
            raise NoAnswerError(f"no service answers at {url} ({outcome})") from outcome
        if not outcome.is_success:
            raise _error(place, outcome)
        try:
            return self.answer.model_validate_json(outcome.content)
        except ValidationError as error:
            raise NoAnswerError(f"{place} gave an answer that is not Saebyeok's: {error}") from error


def classify_call(
    texts: Sequence[str] | None, recipe: str | None, pairs: Sequence[Sequence[str]] | None = None
) -> Call[ClassifyResponse]:
    """Classes of `texts` or of `pairs`."""
    body: dict[str, Any] = {"recipe": recipe}
    if texts is not None:
        body["texts"] = list(texts)
    if pairs is not None:
        body["pairs"] = [list(pair) for pair in pairs]
    return Call("POST", "/classify", ClassifyResponse, body)


def similarity_call(
    pairs: Sequence[Sequence[str]], recipe: str | None, method: Method | None = None
) -> Call[SimilarityResponse]:
    """How alike the two of each of `pairs` are."""
    body = {"pairs": [list(pair) for pair in pairs], "recipe": recipe, "method": method}
    return Call("POST", "/similarity", SimilarityResponse, body)


def score_call(texts: Sequence[str], recipe: str | None) -> Call[ScoreResponse]:
    """Scores of `texts`."""
    return Call("POST", "/score", ScoreResponse, {"texts": list(texts), "recipe": recipe})


def embed_call(texts: Sequence[str], recipe: str | None) -> Call[EmbedResponse]:
    """Vectors of `texts`."""
    return Call("POST", "/embed", EmbedResponse, {"texts": list(texts), "recipe": recipe})


def releases_call() -> Call[ReleasesResponse]:
    """What is deployed."""
    return Call("GET", "/releases", ReleasesResponse)


@dataclass(frozen=True)
class Backoff:
    """When a call is sent again: after `first` seconds, then after twice as many each time, `retries` times."""

    retries: int = 3
    first: float = 0.2
    #: Seconds. A service that asks for more patience than this is not waited for.
    longest: float = 30.0

    def pause(self, attempt: int, outcome: Outcome) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) before another one; None: there is none."""
        asked = _asked_pause(outcome) if attempt <= self.retries else None
        if asked is None or asked > self.longest:
            return None
        step: float = min(self.longest, self.first * 2 ** (attempt - 1))
        # Clients that were refused together must not come back together.
        return asked + step * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _asked_pause(outcome: Outcome) -> float | None:
    """Seconds that the service asks for before another attempt; None where another one is of no use."""
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
            return None
        after = outcome.headers.get("Retry-After", "")
        return float(after) if after.isdecimal() else 0.0
    # A worker that dies or restarts loses its connections, and another one answers. What took too long would again.
    return 0.0 if isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError) else None


def _error(place: str, response: httpx.Response) -> CallError:
    kind, message, index = "unknown", f"status {response.status_code}", None
    try:
        error = ErrorResponse.model_validate_json(response.content).error
        kind, message, index = error.type, error.message, error.index
    except ValidationError:
        pass  # a proxy's, not the service's
    may_pass = response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error
    error_class = FailedCallError if may_pass else RefusedCallError
    text = f"{place}: {message}"
    return error_class(text, status=response.status_code, type=kind, message=message, index=index)
