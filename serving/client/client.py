"""The Python client of the service, for applications: `Client`, and `AsyncClient` for asyncio.

    from serving.client import Client

    with Client("http://127.0.0.1:3000") as client:
        for result in client.classify(["정말 재미있게 봤어요"]).results:
            print(result.label, result.score)

Connections are kept and used again, and a client may be shared by threads (or tasks): make one, not one a request.
A call is repeated where the service is overloaded (429), not available (503) or gone, at the pace that it asks for.
What is left is raised: RefusedCallError where the request is at fault, FailedCallError where the service is,
NoAnswerError where there is none; the first two are CallError, with `status`, `type`, `message` and `index`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel

from serving.client.calls import (
    Backoff,
    Call,
    CallError,
    FailedCallError,
    NoAnswerError,
    Outcome,
    RefusedCallError,
    classify_call,
    embed_call,
    releases_call,
    score_call,
    similarity_call,
)
from serving.schemas import (
    ClassifyResponse,
    EmbedResponse,
    Method,
    ReleasesResponse,
    ScoreResponse,
    SimilarityResponse,
)

__all__ = [
    "AsyncClient",
    "Backoff",
    "CallError",
    "Client",
    "FailedCallError",
    "NoAnswerError",
    "RefusedCallError",
]

Model = TypeVar("Model", bound=BaseModel)

TIMEOUT = 60.0


class Client:
    """Calls one service."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout: float = TIMEOUT,
        backoff: Backoff | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """`timeout` is in seconds, for each attempt.

        `http` brings connections of your own (a proxy, certificates) and their timeout; it is closed with the client.
        """
        self.url = url.rstrip("/")
        self._headers = _bearer(api_key)
        self._backoff = backoff or Backoff()
        self._http = http or httpx.Client(timeout=timeout)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def classify(
        self,
        texts: Sequence[str] | None = None,
        recipe: str | None = None,
        *,
        pairs: Sequence[Sequence[str]] | None = None,
    ) -> ClassifyResponse:
        """Class and probabilities of each text, or of each of `pairs`; `recipe` chooses where several could answer."""
        return self._ask(classify_call(texts, recipe, pairs))

    def similarity(
        self, pairs: Sequence[Sequence[str]], recipe: str | None = None, method: Method | None = None
    ) -> SimilarityResponse:
        """How alike the two sentences of each pair are, by the release's own `method` unless another is named."""
        return self._ask(similarity_call(pairs, recipe, method))

    def score(self, texts: Sequence[str], recipe: str | None = None) -> ScoreResponse:
        """The score of each text, where a regression over single texts is deployed."""
        return self._ask(score_call(texts, recipe))

    def embed(self, texts: Sequence[str], recipe: str | None = None) -> EmbedResponse:
        """The vector of each text, of length 1, where a bi-encoder is deployed."""
        return self._ask(embed_call(texts, recipe))

    def releases(self) -> ReleasesResponse:
        """What is deployed."""
        return self._ask(releases_call())

    def _ask(self, call: Call[Model]) -> Model:
        for attempt in count(1):
            outcome = self._send(call)
            pause = self._backoff.pause(attempt, outcome)
            if pause is None:
                break
            time.sleep(pause)
        return call.read(self.url, outcome)

    def _send(self, call: Call[Model]) -> Outcome:
        headers = {**self._headers, **call.headers}
        try:
            return self._http.request(call.method, f"{self.url}{call.path}", json=call.body, headers=headers)
        except httpx.RequestError as error:
            return error


class AsyncClient:
    """Calls one service from asyncio."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout: float = TIMEOUT,
        backoff: Backoff | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """As for `Client`."""
        self.url = url.rstrip("/")
        self._headers = _bearer(api_key)
        self._backoff = backoff or Backoff()
        self._http = http or httpx.AsyncClient(timeout=timeout)

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def classify(
        self,
        texts: Sequence[str] | None = None,
        recipe: str | None = None,
        *,
        pairs: Sequence[Sequence[str]] | None = None,
    ) -> ClassifyResponse:
        """Class and probabilities of each text, or of each of `pairs`; `recipe` chooses where several could answer."""
        return await self._ask(classify_call(texts, recipe, pairs))

    async def similarity(
        self, pairs: Sequence[Sequence[str]], recipe: str | None = None, method: Method | None = None
    ) -> SimilarityResponse:
        """How alike the two sentences of each pair are, by the release's own `method` unless another is named."""
        return await self._ask(similarity_call(pairs, recipe, method))

    async def score(self, texts: Sequence[str], recipe: str | None = None) -> ScoreResponse:
        """The score of each text, where a regression over single texts is deployed."""
        return await self._ask(score_call(texts, recipe))

    async def embed(self, texts: Sequence[str], recipe: str | None = None) -> EmbedResponse:
        """The vector of each text, of length 1, where a bi-encoder is deployed."""
        return await self._ask(embed_call(texts, recipe))

    async def releases(self) -> ReleasesResponse:
        """What is deployed."""
        return await self._ask(releases_call())

    async def _ask(self, call: Call[Model]) -> Model:
        for attempt in count(1):
            outcome = await self._send(call)
            pause = self._backoff.pause(attempt, outcome)
            if pause is None:
                break
            await asyncio.sleep(pause)
        return call.read(self.url, outcome)

    async def _send(self, call: Call[Model]) -> Outcome:
        headers = {**self._headers, **call.headers}
        try:
            return await self._http.request(call.method, f"{self.url}{call.path}", json=call.body, headers=headers)
        except httpx.RequestError as error:
            return error


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}
