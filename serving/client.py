"""A small client of the service, for deploying and for the command line."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from pipeline.artifacts import Store
from pipeline.errors import RefusedError, ServiceError, SettingsError
from serving.schemas import (
    RELEASE_HEADER,
    ClassifyResponse,
    ErrorResponse,
    ReleasesResponse,
    SimilarityResponse,
    StagedResponse,
)

log = logging.getLogger(__name__)

#: A worker that dies or restarts loses its connections; another one answers the next attempt.
ATTEMPTS = 4

Model = TypeVar("Model", bound=BaseModel)


class ServiceClient:
    """Talks to one service. Every method raises ServiceError where it does not answer as it must.

    RefusedError is for what the service refuses (and would again), SettingsError for a wrong deploy token.
    """

    def __init__(self, url: str, token: str = "", timeout: float = 60.0) -> None:
        """`token` is the deploy token, needed to stage and to address a release, or a key; `timeout` is in seconds."""
        self.url = url.rstrip("/")
        # A connection a request: a kept one would always reach the same worker, and die with it.
        limits = httpx.Limits(max_keepalive_connections=0)
        # The token opens what API keys open, too.
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(timeout=timeout, limits=limits, headers=headers, trust_env=False)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._http.close()

    def is_live(self) -> bool:
        """Whether a service answers at the URL at all."""
        return self._probe("/livez")

    def serves(self, store: Store) -> bool:
        """Whether a service answers that follows the deployments of `store`; one of another store is warned of."""
        if not self.is_live():
            return False
        followed = self.releases().store
        # A Bento follows none, and says itself why it takes no release.
        if followed in (None, store.digest):
            return True
        log.warning(
            "the service at %s is of another store than %s, and is left alone: start this store's own where "
            "SAEBYEOK_SERVICE_URL says, which may be another port",
            self.url,
            store.uri,
        )
        return False

    def is_ready(self) -> bool:
        """Whether the worker that answers has a deployment loaded."""
        return self._probe("/readyz")

    def releases(self) -> ReleasesResponse:
        """What is deployed, staged and acknowledged."""
        return self._ask("GET", "/releases", ReleasesResponse)

    def classify(self, texts: Sequence[str], recipe: str | None = None, release: str | None = None) -> ClassifyResponse:
        """Classes of `texts`; `release` addresses a staged or live release by id or ref."""
        body = {"texts": list(texts), "recipe": recipe}
        return self._ask("POST", "/classify", ClassifyResponse, body, self._address(release))

    def similarity(
        self, pairs: Sequence[Sequence[str]], recipe: str | None = None, release: str | None = None
    ) -> SimilarityResponse:
        """Scores of `pairs`; `release` addresses a staged or live release by id or ref."""
        body = {"pairs": [list(pair) for pair in pairs], "recipe": recipe}
        return self._ask("POST", "/similarity", SimilarityResponse, body, self._address(release))

    def stage(self, ref: str) -> list[str]:
        """Have every worker load the release at `ref` beside the live ones; the staged refs."""
        return self._ask("POST", "/releases/stage", StagedResponse, {"release": ref}).staged

    def unstage(self, ref: str) -> list[str]:
        """Have every worker drop the staged release at `ref`; the staged refs."""
        return self._ask("DELETE", "/releases/stage", StagedResponse, {"release": ref}).staged

    def _address(self, release: str | None) -> dict[str, str]:
        return {} if release is None else {RELEASE_HEADER: release}

    def _probe(self, path: str) -> bool:
        try:
            return self._http.get(f"{self.url}{path}").is_success
        except httpx.HTTPError:
            return False

    def _ask(
        self,
        method: str,
        path: str,
        model: type[Model],
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Model:
        response = self._send(method, path, body, headers)
        if response.is_success:
            try:
                return model.model_validate_json(response.content)
            except ValidationError as error:
                raise ServiceError(f"{self.url}{path} gave an answer that is not Saebyeok's: {error}") from error
        message = f"{self.url}{path}: {_message(response)}"
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise SettingsError(f"{message}; the service was started with another token")
        raise (RefusedError if response.is_client_error else ServiceError)(message)

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None
    ) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._http.request(method, f"{self.url}{path}", json=body, headers=headers)
            except httpx.HTTPError as error:
                if attempt == ATTEMPTS:
                    raise ServiceError(
                        f"no service answers at {self.url} ({error}); start it, or set SAEBYEOK_SERVICE_URL"
                    ) from error
            time.sleep(0.2 * attempt)
        raise AssertionError("unreachable")


def _message(response: httpx.Response) -> str:
    try:
        return ErrorResponse.model_validate_json(response.content).error.message
    except ValidationError:
        return f"status {response.status_code}"
