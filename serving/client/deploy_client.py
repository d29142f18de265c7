"""The deployer's client: what applications may ask, and with the deploy token staging and staged releases."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from pipeline.errors import GoldenMismatchError, ServiceError, SettingsError
from pipeline.store.artifacts import Store
from pipeline.store.releases import Card
from serving.client.calls import Call, CallError, NoAnswerError, classify_call, score_call, similarity_call
from serving.client.client import TIMEOUT, Client
from serving.engine.golden import Ask
from serving.schemas import (
    RELEASE_HEADER,
    ClassifyResponse,
    Method,
    ScoreResponse,
    SimilarityResponse,
    StagedResponse,
)

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)


class ServiceClient(Client):
    """Talks to one service of this project's. Every method raises ServiceError where it does not answer as it must.

    RefusedError is for what the service refuses (and would again), SettingsError for a wrong deploy token.
    """

    def __init__(self, url: str, token: str = "", timeout: float = TIMEOUT) -> None:
        """`token` is the deploy token, needed to stage and to ask a release by name; `timeout` is in seconds."""
        # A connection a request: a kept one would always reach the same worker, and die with it.
        limits = httpx.Limits(max_keepalive_connections=0)
        super().__init__(url, token, http=httpx.Client(timeout=timeout, limits=limits, trust_env=False))

    def is_live(self) -> bool:
        """Whether a service answers at the URL at all."""
        return self._probe("/livez")

    def is_ready(self) -> bool:
        """Whether the worker that answers has a deployment loaded."""
        return self._probe("/readyz")

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

    def classify(
        self,
        texts: Sequence[str] | None = None,
        recipe: str | None = None,
        release: str | None = None,
        *,
        pairs: Sequence[Sequence[str]] | None = None,
    ) -> ClassifyResponse:
        """Classes of `texts` or of `pairs`; `release` addresses a staged or live release by id or ref."""
        return self._ask(_addressed(classify_call(texts, recipe, pairs), release))

    def similarity(
        self,
        pairs: Sequence[Sequence[str]],
        recipe: str | None = None,
        method: Method | None = None,
        release: str | None = None,
    ) -> SimilarityResponse:
        """How alike the two of each of `pairs` are; `release` addresses a staged or live release by id or ref."""
        return self._ask(_addressed(similarity_call(pairs, recipe, method), release))

    def score(self, texts: Sequence[str], recipe: str | None = None, release: str | None = None) -> ScoreResponse:
        """Scores of `texts`; `release` addresses a staged or live release by id or ref."""
        return self._ask(_addressed(score_call(texts, recipe), release))

    def stage(self, ref: str) -> list[str]:
        """Have every worker load the release at `ref` beside the live ones; the staged refs."""
        return self._ask(Call("POST", "/releases/stage", StagedResponse, {"release": ref})).staged

    def unstage(self, ref: str) -> list[str]:
        """Have every worker drop the staged release at `ref`; the staged refs."""
        return self._ask(Call("DELETE", "/releases/stage", StagedResponse, {"release": ref})).staged

    def _probe(self, path: str) -> bool:
        outcome = self._send(Call("GET", path, BaseModel))
        return isinstance(outcome, httpx.Response) and outcome.is_success

    def _ask(self, call: Call[Model]) -> Model:
        try:
            return super()._ask(call)
        except NoAnswerError as error:
            raise ServiceError(f"{error}; start it, or set SAEBYEOK_SERVICE_URL") from error
        except CallError as error:
            if error.status == httpx.codes.UNAUTHORIZED:
                raise SettingsError(f"{error}; the service was started with another token") from error
            raise


def _addressed(call: Call[Model], release: str | None) -> Call[Model]:
    return call if release is None else replace(call, headers={RELEASE_HEADER: release})


def service_answers(client: ServiceClient, card: Card, ref: str | None = None) -> Ask:
    """Answers of the service as rows of numbers: of release `ref`, or without one of whatever users get."""

    def ask(inputs: Sequence[tuple[str, ...]]) -> list[list[float]]:
        answer: ClassifyResponse | SimilarityResponse | ScoreResponse
        texts = [item[0] for item in inputs]
        if card.route == "/classify":
            asked: dict[str, Any] = {"pairs": inputs} if card.inputs == "pair" else {"texts": texts}
            answer = client.classify(**asked, recipe=card.recipe, release=ref)
            rows = [[result.probabilities[label] for label in card.labels] for result in answer.results]
        else:
            if card.route == "/similarity":
                answer = client.similarity(inputs, card.recipe, release=ref)
            else:
                answer = client.score(texts, card.recipe, release=ref)
            rows = [[result.score] for result in answer.results]
        if answer.release != card.id:
            raise GoldenMismatchError(f"{client.url} answered with release {answer.release} instead of {card.id}")
        return rows

    return ask
