"""The deployer's client: all calls of applications, plus staging and staged releases with the deploy token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import httpx
from pydantic import BaseModel

from pipeline.errors import GoldenMismatchError, RefusedError, ServiceError, SettingsError
from pipeline.recipes.kinds.task_kind import Method, Route
from pipeline.store.artifacts import Store
from pipeline.store.releases import Ask, Card
from serving.client.calls import Call, CallError, Model, NoAnswerError, classify_call, score_call, similarity_call
from serving.client.client import TIMEOUT, Client, certificates
from serving.client.responses import RELEASE_HEADER, ClassifyResponse, ScoreResponse, SimilarityResponse
from serving.schemas import StagedResponse

log = logging.getLogger(__name__)


class ServiceClient(Client):
    """Client of one Saebyeok service. Methods raise ServiceError if the service does not answer or fails.

    They raise RefusedError if the service refuses a request, and SettingsError for a wrong deploy token.
    """

    def __init__(self, url: str, token: str = "", timeout: float = TIMEOUT) -> None:
        """`token` is the deploy token, needed to stage and to address a release; `timeout` is in seconds."""
        # One connection per request: a kept connection always reaches the same worker, and dies with it.
        limits = httpx.Limits(max_keepalive_connections=0)
        http = httpx.Client(timeout=timeout, limits=limits, trust_env=False, verify=certificates(trust_env=False))
        super().__init__(url, token, http=http)

    def is_live(self) -> bool:
        """Return whether a service answers at the URL."""
        return self._probe("/livez")

    def is_ready(self) -> bool:
        """Return whether the worker that answers has loaded a deployment."""
        return self._probe("/readyz")

    def serves(self, store: Store) -> bool:
        """Return whether a service of `store` answers; log a warning if it serves another store."""
        if not self.is_live():
            return False
        followed = self.releases().store
        # A Bento follows no store; it explains itself when it refuses a release.
        if followed in (None, store.digest):
            return True
        log.warning(
            "the service at %s serves another store than %s and is not used; set SAEBYEOK_SERVICE_URL to another port "
            "and start a service for this store there",
            self.url,
            store.uri,
        )
        return False

    def classify(
        self,
        texts: Sequence[str] | None = None,
        recipe: str | None = None,
        release: str | None = None,
        *,
        pairs: Sequence[Sequence[str]] | None = None,
    ) -> ClassifyResponse:
        """Classify `texts` or `pairs`; `release` addresses a staged or live release by id or ref."""
        return self._ask(_addressed(classify_call(texts, recipe, pairs), release))

    def similarity(
        self,
        pairs: Sequence[Sequence[str]],
        recipe: str | None = None,
        method: Method | None = None,
        release: str | None = None,
    ) -> SimilarityResponse:
        """Return the similarity of each pair; `release` addresses a staged or live release by id or ref."""
        return self._ask(_addressed(similarity_call(pairs, recipe, method), release))

    def score(self, texts: Sequence[str], recipe: str | None = None, release: str | None = None) -> ScoreResponse:
        """Score `texts`; `release` addresses a staged or live release by id or ref."""
        return self._ask(_addressed(score_call(texts, recipe), release))

    def stage(self, ref: str) -> list[str]:
        """Tell every worker to load the release at `ref` in addition to the live ones; return all staged refs."""
        return self._ask(Call("POST", "/releases/stage", StagedResponse, {"release": ref})).staged

    def unstage(self, ref: str) -> list[str]:
        """Tell every worker to unload the staged release at `ref`; return the remaining staged refs."""
        return self._ask(Call("DELETE", "/releases/stage", StagedResponse, {"release": ref})).staged

    def _probe(self, path: str) -> bool:
        outcome = self._send(Call("GET", path, BaseModel))
        return isinstance(outcome, httpx.Response) and outcome.is_success

    def _ask(self, call: Call[Model]) -> Model:
        try:
            return super()._ask(call)
        except NoAnswerError as error:
            raise ServiceError(f"{error}; start the service, or set SAEBYEOK_SERVICE_URL") from error
        except CallError as error:
            if error.status == httpx.codes.UNAUTHORIZED:
                raise SettingsError(f"{error}; the service was started with another deploy token") from error
            if error.status == httpx.codes.NOT_FOUND and RELEASE_HEADER in call.headers:
                # Staged again right after it was unstaged: the worker reports the release for a moment longer.
                raise ServiceError(str(error)) from error
            raise (ServiceError if error.retryable else RefusedError)(str(error)) from error


#: Methods that ask the service for answers, by route.
ROUTES: Mapping[Route, Callable[..., ClassifyResponse | SimilarityResponse | ScoreResponse]] = {
    "/classify": ServiceClient.classify,
    "/similarity": ServiceClient.similarity,
    "/score": ServiceClient.score,
}


def _addressed(call: Call[Model], release: str | None) -> Call[Model]:
    return call if release is None else replace(call, headers={RELEASE_HEADER: release})


def service_answers(client: ServiceClient, card: Card, ref: str | None = None) -> Ask:
    """Return a function that gets answers from the service as rows of numbers.

    It addresses the release at `ref`; without a `ref`, it uses the live release of the card's recipe.
    """

    def ask(inputs: Sequence[tuple[str, ...]]) -> list[list[float]]:
        answer = ROUTES[card.route](client, **card.task.body(inputs), recipe=card.recipe, release=ref)
        if answer.release != card.id:
            raise GoldenMismatchError(f"{client.url} answered with release {answer.release} instead of {card.id}")
        return [card.task.answer(card, result.model_dump()) for result in answer.results]

    return ask
