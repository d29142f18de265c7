"""Calls of the service: requests, retries and the meaning of responses, without I/O."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from .responses import (
    DEPLOYMENT_HEADER,
    RELEASE_HEADER,
    ClassifyResponse,
    EmbedResponse,
    Method,
    ReleasesResponse,
    ScoreResponse,
    SimilarityResponse,
)

Model = TypeVar("Model", bound=BaseModel)
#: Result of one attempt.
Outcome = httpx.Response | httpx.RequestError


class ClientError(Exception):
    """Base of the client's errors."""

    #: Whether the same call may succeed later.
    retryable = False


class CallError(ClientError):
    """The service answered with an error."""

    def __init__(self, text: str, *, status: int, type: str, message: str, index: int | None) -> None:
        """`status` is HTTP's; `type`, `message` and `index` (of the text or pair, from 0) are the service's."""
        super().__init__(text)
        self.status = status
        self.type = type
        self.message = message
        self.index = index


class RefusedCallError(CallError):
    """The service refused the request (400, 401, 404, ...); a retry would fail again."""


class FailedCallError(CallError):
    """The service was overloaded or failed (429, 5xx), also in the last attempt; a later call may succeed."""

    retryable = True


class NoAnswerError(ClientError):
    """The service did not answer, or not in time, or the response is not Saebyeok's."""

    retryable = True


def clean_url(url: str) -> str:
    """Return `url` without white space around it and slashes at its end.

    Raises ValueError if it is not the address of a service: HTTP or HTTPS, a host, and neither query nor fragment.
    """
    url = url.strip().rstrip("/")
    try:
        parts = httpx.URL(url)
        # httpx accepts any number as a port, blanks, and host names with an empty or a long label.
        port = 80 if parts.port is None else parts.port
        valid = bool(parts.host.encode("idna")) and port in range(1, 2**16) and " " not in url
        valid = valid and parts.scheme in ("http", "https") and not (parts.query or parts.fragment)
    except (httpx.InvalidURL, UnicodeError):
        valid = False
    if not valid:
        raise ValueError(f"{without_login(url)!r} is not the URL of a service, such as http://127.0.0.1:3000")
    return url


def without_login(url: str) -> str:
    """Return `url` with its user name and password replaced by `***`."""
    return re.sub(r"://[^/\s]+@", "://***@", url)


class _Error(BaseModel):
    """Type, message and location of an error; newer services may have more types."""

    type: str
    message: str
    index: int | None = None


class _ErrorResponse(BaseModel):
    """The body of an error response."""

    error: _Error


@dataclass(frozen=True)
class Call(Generic[Model]):
    """One request; all requests are idempotent, so each may be retried."""

    method: str
    path: str
    answer: type[Model]
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def read(self, url: str, outcome: Outcome) -> Model:
        """Return the parsed response of the service at `url`.

        Raises RefusedCallError, FailedCallError or NoAnswerError.
        """
        url = without_login(url)
        place = f"{url}{self.path}"
        if isinstance(outcome, httpx.TimeoutException):
            raise NoAnswerError(f"{place} did not answer in time") from outcome
        if isinstance(outcome, httpx.RequestError):
            raise NoAnswerError(f"no service answers at {url} ({outcome}); start it, or correct the URL") from outcome
        if not outcome.is_success:
            raise _error(place, outcome)
        try:
            return self.answer.model_validate_json(outcome.content)
        except ValidationError as error:
            raise NoAnswerError(f"{place} returned a response that is not Saebyeok's: {error}") from error


def classify_call(
    texts: Sequence[str] | None, recipe: str | None, pairs: Sequence[Sequence[str]] | None = None
) -> Call[ClassifyResponse]:
    """Return the call that classifies `texts` or `pairs`."""
    body: dict[str, Any] = {"recipe": recipe}
    if texts is not None:
        body["texts"] = _texts(texts)
    if pairs is not None:
        body["pairs"] = _pairs(pairs)
    return Call("POST", "/classify", ClassifyResponse, body)


def similarity_call(
    pairs: Sequence[Sequence[str]], recipe: str | None, method: Method | None = None
) -> Call[SimilarityResponse]:
    """Return the call that compares the sentences of each pair."""
    body = {"pairs": _pairs(pairs), "recipe": recipe, "method": method}
    return Call("POST", "/similarity", SimilarityResponse, body)


def score_call(texts: Sequence[str], recipe: str | None) -> Call[ScoreResponse]:
    """Return the call that scores `texts`."""
    return Call("POST", "/score", ScoreResponse, {"texts": _texts(texts), "recipe": recipe})


def embed_call(texts: Sequence[str], recipe: str | None) -> Call[EmbedResponse]:
    """Return the call that embeds `texts`."""
    return Call("POST", "/embed", EmbedResponse, {"texts": _texts(texts), "recipe": recipe})


def releases_call() -> Call[ReleasesResponse]:
    """Return the call that lists the deployed releases."""
    return Call("GET", "/releases", ReleasesResponse)


def pin_headers(release: str | None, deployment: int | None) -> dict[str, str]:
    """Return the headers of a call to a live release, by its id, and to this deployment or a newer one."""
    wanted = {RELEASE_HEADER: release, DEPLOYMENT_HEADER: deployment}
    return {name: str(value) for name, value in wanted.items() if value is not None}


def _texts(texts: Sequence[str]) -> list[str]:
    # A string is a sequence of strings, too: each character would be taken for a text.
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings; put a single text into a list: [text]")
    return list(texts)


def _pairs(pairs: Sequence[Sequence[str]]) -> list[list[str]]:
    if isinstance(pairs, str) or any(isinstance(pair, str) for pair in pairs):
        raise TypeError("pairs must be a list of pairs of strings; put a single pair into a list: [(text, text)]")
    return [list(pair) for pair in pairs]


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff: retry after `first` seconds, then double the delay; at most `retries` retries."""

    retries: int = 3
    first: float = 0.2
    #: Maximum delay in seconds. A call is not retried if the service asks for a longer one.
    longest: float = 30.0

    def pause(self, attempt: int, outcome: Outcome) -> float | None:
        """Return the seconds to wait after attempt number `attempt` (from 1); None if there is no retry."""
        asked = _asked_pause(outcome) if attempt <= self.retries else None
        if asked is None or asked > self.longest:
            return None
        step: float = min(self.longest, self.first * 2 ** (attempt - 1))
        # Random, so that clients that were refused together do not retry together.
        return asked + step * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _asked_pause(outcome: Outcome) -> float | None:
    """Return the seconds that the service asks to wait (0 if it does not say); None if a retry is useless."""
    if isinstance(outcome, httpx.Response):
        after = outcome.headers.get("Retry-After", "")
        # Another replica may serve the deployment that a pinned call asks for.
        behind = outcome.status_code == httpx.codes.CONFLICT and after
        if outcome.status_code not in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE) and not behind:
            return None
        return float(after) if after.isdecimal() else 0.0
    # Retry a lost connection: another worker answers if one dies or restarts. Do not retry a timeout.
    return 0.0 if isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError) else None


def _error(place: str, response: httpx.Response) -> CallError:
    kind, message, index = "unknown", f"status {response.status_code}", None
    try:
        error = _ErrorResponse.model_validate_json(response.content).error
        kind, message, index = error.type, error.message, error.index
    except ValidationError:
        pass  # a proxy's response
    may_pass = response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error
    error_class = FailedCallError if may_pass else RefusedCallError
    text = f"{place}: {message}"
    return error_class(text, status=response.status_code, type=kind, message=message, index=index)
