"""The Python client of the service, for applications: `Client`, and `AsyncClient` for asyncio.

    from saebyeok_client import Client  # or, in an environment with all of Saebyeok, from serving.client

    with Client("http://127.0.0.1:3000") as client:
        for result in client.classify(["정말 재미있게 봤어요"]).results:
            print(result.label, result.score)

A client reuses its connections and may be shared by threads (or tasks): create one, not one per request.
A call is retried if the service is overloaded (429), unavailable (503) or unreachable, after the delay it asks for.
Errors: RefusedCallError if the request is invalid, FailedCallError if the service fails, NoAnswerError if there is no
valid response. All are subclasses of ClientError; the first two are also of CallError, with `status`, `type`, `message`
and `index`. A single string instead of a list is a TypeError.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from itertools import count
from typing import Self, TypeVar

import httpx

from .calls import (
    Backoff,
    Call,
    CallError,
    ClientError,
    FailedCallError,
    Model,
    NoAnswerError,
    Outcome,
    RefusedCallError,
    classify_call,
    clean_url,
    embed_call,
    pin_headers,
    releases_call,
    score_call,
    similarity_call,
)
from .responses import (
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
    "ClientError",
    "FailedCallError",
    "NoAnswerError",
    "RefusedCallError",
]


Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

TIMEOUT = 60.0
#: Addresses of this machine, which are called without a proxy, whatever the environment says.
DIRECT: Mapping[str, None] = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}


class _Caller:
    """The address, headers and retries of a client."""

    def __init__(self, url: str, api_key: str, backoff: Backoff | None) -> None:
        self.url = clean_url(url)
        self._headers = _bearer(api_key)
        self._backoff = backoff or Backoff()

    def pinned(self, *, release: str | None = None, deployment: int | None = None) -> Self:
        """Return a client whose calls use the live release with this id, and this deployment or a newer one.

        A replica that does not serve the release refuses the call (404). One that serves an older deployment is asked
        again (409). Both clients share their connections; close only the first.
        """
        pinned = copy(self)
        pinned._headers = {**self._headers, **pin_headers(release, deployment)}
        return pinned


class Client(_Caller):
    """Client of one service."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout: float = TIMEOUT,
        backoff: Backoff | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """`timeout` is the limit of each attempt, in seconds.

        `http` is your own HTTP client (for a proxy or certificates) with its own timeout; it is closed with this one.
        Raises ValueError if no request can be sent with `url`, `api_key` or the environment's proxy.
        """
        super().__init__(url, api_key, backoff)
        self._http = http or _open(httpx.Client, timeout)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def classify(
        self,
        texts: Sequence[str] | None = None,
        recipe: str | None = None,
        *,
        pairs: Sequence[Sequence[str]] | None = None,
    ) -> ClassifyResponse:
        """Return class and probabilities of each text or pair; `recipe` is needed if several deployed recipes fit."""
        return self._ask(classify_call(texts, recipe, pairs))

    def similarity(
        self, pairs: Sequence[Sequence[str]], recipe: str | None = None, method: Method | None = None
    ) -> SimilarityResponse:
        """Return the similarity of each pair of sentences, by the release's default `method` unless given."""
        return self._ask(similarity_call(pairs, recipe, method))

    def score(self, texts: Sequence[str], recipe: str | None = None) -> ScoreResponse:
        """Return the score of each text; requires a deployed regression release for single texts."""
        return self._ask(score_call(texts, recipe))

    def embed(self, texts: Sequence[str], recipe: str | None = None) -> EmbedResponse:
        """Return the unit vector of each text; requires a deployed bi-encoder."""
        return self._ask(embed_call(texts, recipe))

    def releases(self) -> ReleasesResponse:
        """Return the deployed releases and the state of the workers."""
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


class AsyncClient(_Caller):
    """Client of one service for asyncio."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout: float = TIMEOUT,
        backoff: Backoff | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Take the parameters of `Client`."""
        super().__init__(url, api_key, backoff)
        self._http = http or _open(httpx.AsyncClient, timeout)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def classify(
        self,
        texts: Sequence[str] | None = None,
        recipe: str | None = None,
        *,
        pairs: Sequence[Sequence[str]] | None = None,
    ) -> ClassifyResponse:
        """Return class and probabilities of each text or pair; `recipe` is needed if several deployed recipes fit."""
        return await self._ask(classify_call(texts, recipe, pairs))

    async def similarity(
        self, pairs: Sequence[Sequence[str]], recipe: str | None = None, method: Method | None = None
    ) -> SimilarityResponse:
        """Return the similarity of each pair of sentences, by the release's default `method` unless given."""
        return await self._ask(similarity_call(pairs, recipe, method))

    async def score(self, texts: Sequence[str], recipe: str | None = None) -> ScoreResponse:
        """Return the score of each text; requires a deployed regression release for single texts."""
        return await self._ask(score_call(texts, recipe))

    async def embed(self, texts: Sequence[str], recipe: str | None = None) -> EmbedResponse:
        """Return the unit vector of each text; requires a deployed bi-encoder."""
        return await self._ask(embed_call(texts, recipe))

    async def releases(self) -> ReleasesResponse:
        """Return the deployed releases and the state of the workers."""
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


def _open(kind: type[Http], timeout: float) -> Http:
    """Return an HTTP client. Raises ValueError if a proxy in the environment cannot be used."""
    try:
        return kind(timeout=timeout, mounts=DIRECT, verify=certificates())
    except (httpx.InvalidURL, ImportError, ValueError):
        # The error of a proxy's address may show its password.
        raise ValueError(
            "a proxy in the environment has no valid address; correct HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
        ) from None


@cache
def certificates(*, trust_env: bool = True) -> ssl.SSLContext:
    """Return the certificates that verify a server; with `trust_env`, those that SSL_CERT_FILE and SSL_CERT_DIR name.

    Loading takes 20 ms, so all clients of a process share them.
    """
    return httpx.create_ssl_context(trust_env=trust_env)


def _bearer(key: str) -> dict[str, str]:
    """Return the header with `key`, without its surrounding white space. Raises ValueError if no header can have it."""
    # Checked here, because the HTTP library's own error shows the key.
    if not (key := key.strip()).isascii() or not key.isprintable():
        raise ValueError("the API key contains a line break or a character outside ASCII; remove it")
    return {"Authorization": f"Bearer {key}"} if key else {}
