"""The BentoML service and its model routes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import bentoml

from pipeline.errors import SaebyeokError
from pipeline.job import keep_libraries_home
from pipeline.settings import Settings, load_settings
from pipeline.store.artifacts import Store
from pipeline.store.deployments import BAKED_DEPLOYMENT, Deployment
from serving.api.auth import KeyLimit, api_keys, deploy_token
from serving.api.bentoml_app import FrontedService, answered, posted
from serving.api.compatible.openai import EmbeddingsRequest, EmbeddingsResponse, embeddings
from serving.api.compatible.tei import (
    PredictRequest,
    PredictResponse,
    TeiEmbedRequest,
    VectorList,
    predictions,
    vectors,
)
from serving.api.control_routes import Live, Need, control_app
from serving.api.counter_files import delete_counters_at_exit, use_counter_directory
from serving.api.errors import ApiError
from serving.api.logs import log_as_json
from serving.api.metrics import Metrics, served
from serving.api.middleware import Gate
from serving.api.openapi import describe
from serving.api.request_batching import EngineMethod, Sharing
from serving.api.supervision import end_with_supervisor
from serving.client.responses import (
    DEPLOYMENT_HEADER,
    RELEASE_HEADER,
    ClassifyResponse,
    EmbedResponse,
    ScoreResponse,
    SimilarityResponse,
)
from serving.deployed.follower import BakedSource, Follower, LogSource
from serving.engine.engine import Answer, Engine, EngineOptions
from serving.schemas import ClassifyRequest, EmbedRequest, ErrorType, ReadyResponse, ScoreRequest, SimilarityRequest

#: The deployment built into a Bento; the file exists only there, next to the packages.
BAKED = Path(__file__).resolve().parent.parent / BAKED_DEPLOYMENT


def valid_settings() -> Settings:
    """Return the settings; end the process if one is invalid, because BentoML restarts a worker that fails for ever."""
    try:
        settings = load_settings()
        api_keys(settings)
        # A worker creates the file if it is absent; an import, as in the build of an image, must not.
        if settings.deploy_token or settings.deploy_token_file.exists():
            deploy_token(settings)
    except SaebyeokError as error:
        sys.exit(f"error: {error}")
    return settings


# Loaded on import: BentoML reads the number of workers while it imports this module.
SETTINGS = valid_settings()
keep_libraries_home(SETTINGS)
use_counter_directory(SETTINGS.home)
DOCUMENT = describe(SETTINGS)
CONTROL = control_app(SETTINGS, DOCUMENT)


def open_live(settings: Settings, threads: int, metrics: Metrics) -> Live:
    """Return the state that the routes share; it serves the Bento's own deployment, or follows the store's log."""
    options = EngineOptions.from_settings(settings, threads=threads)
    keys = api_keys(settings)
    if BAKED.is_file():
        baked = BakedSource(Deployment.parse(BAKED.read_bytes(), str(BAKED)))
        return Live(Follower(baked, options, metrics.observer), "", keys)
    # With downloads of its own, which it deletes after their import, while the pipeline may use others.
    source = LogSource(settings, Store(settings.store_uri, settings.home / "service" / "downloads"))
    follower = Follower(source, options, metrics.observer, settings.follow_seconds)
    return Live(follower, deploy_token(settings), keys)


def admit(header: str | None) -> None:
    """Raise ApiError unless `header` (`Authorization`) grants access to the service."""
    live: Live = CONTROL.state.live
    live.admit(header)


@bentoml.service(
    name="Saebyeok",
    service_class=FrontedService,
    workers=SETTINGS.workers,
)
@bentoml.asgi_app(CONTROL, name="control")
class Saebyeok:
    """Korean BERT models, retrained overnight and served by morning."""

    def __init__(self) -> None:
        """Load the deployed releases before the first request is accepted."""
        end_with_supervisor()
        log_as_json()
        threads = SETTINGS.threads or max(1, (os.cpu_count() or 1) // SETTINGS.workers)
        metrics = Metrics()
        self._sharing = Sharing(
            SETTINGS.max_concurrent or threads, SETTINGS.max_queue, metrics.queued, SETTINGS.request_seconds
        )
        self._live = open_live(SETTINGS, threads, metrics)
        self._live.follower.start()
        CONTROL.state.live = self._live
        # The loaded objects are permanent: exclude them from garbage collection during requests.
        gc.collect()
        gc.freeze()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    def prepare() -> None:
        """Prepare the supervisor, before it starts the workers."""
        delete_counters_at_exit()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Remove this worker's state and stop its threads."""
        self._live.follower.close()
        self._sharing.close()

    def readiness(self) -> ReadyResponse:
        """Return the deployment and the execution provider of each recipe.

        Raises ApiError UNAVAILABLE if no deployment is loaded, or if this worker does not follow the deployments.
        """
        if reason := self._live.follower.unready():
            raise ApiError(ErrorType.UNAVAILABLE, reason)
        now = self._live.follower.snapshot
        providers = {recipe: engine.provider for recipe, engine in now.live.items()}
        return ReadyResponse(deployment=now.number, providers=providers, follows=self._live.follower.problem is None)

    def __metrics__(self, text: str) -> str:
        """Return the response of `/metrics`; `text` holds the metrics that BentoML collected from all workers."""
        return text + served(self._live.releases())

    @bentoml.api(route="/classify", input_spec=posted(ClassifyRequest))  # type: ignore[untyped-decorator]
    async def classify(self, body: ClassifyRequest, /, ctx: bentoml.Context) -> ClassifyResponse:
        """Return class and probabilities of each text or pair."""
        paired = "pairs" in body.model_fields_set
        inputs = [tuple(pair) for pair in body.pairs] if paired else [(text,) for text in body.texts]
        self._check(inputs, ctx)
        engine = self._engine(Need("classification", "pair" if paired else "text"), body.recipe, ctx)
        answer = await self._ask(engine.answer, inputs, ctx)
        return ClassifyResponse.model_validate({**_named(engine), "results": _results(engine, answer)})

    @bentoml.api(route="/similarity", input_spec=posted(SimilarityRequest))  # type: ignore[untyped-decorator]
    async def similarity(self, body: SimilarityRequest, /, ctx: bentoml.Context) -> SimilarityResponse:
        """Return the similarity of each pair of sentences."""
        pairs = [(left, right) for left, right in body.pairs]
        self._check(pairs, ctx)
        engine = self._engine(Need("regression", "pair", body.method), body.recipe, ctx)
        method = body.method or engine.methods[0]
        answer = await self._ask(engine.answer, pairs, ctx, method=method)
        document = {**_named(engine), "method": method, "results": _results(engine, answer)}
        return SimilarityResponse.model_validate(document)

    @bentoml.api(route="/score", input_spec=posted(ScoreRequest))  # type: ignore[untyped-decorator]
    async def score(self, body: ScoreRequest, /, ctx: bentoml.Context) -> ScoreResponse:
        """Return the score of each text."""
        inputs = [(text,) for text in body.texts]
        self._check(inputs, ctx)
        engine = self._engine(Need("regression", "text"), body.recipe, ctx)
        answer = await self._ask(engine.answer, inputs, ctx)
        return ScoreResponse.model_validate({**_named(engine), "results": _results(engine, answer)})

    @bentoml.api(  # type: ignore[untyped-decorator]
        route="/embed", input_spec=posted(EmbedRequest, TeiEmbedRequest), output_spec=answered(EmbedResponse)
    )
    async def embed(self, body: EmbedRequest | TeiEmbedRequest, /, ctx: bentoml.Context) -> EmbedResponse | VectorList:
        """Return the vector of each text, computed by a bi-encoder; in TEI's form if the body is in it."""
        if isinstance(body, TeiEmbedRequest):
            return vectors(body, (await self._embed(body.inputs, body.recipe, ctx))[1])
        engine, answer = await self._embed(body.texts, body.recipe, ctx)
        rows = zip(answer.values.tolist(), _readings(answer), strict=True)
        results = [{"vector": vector, **read} for vector, read in rows]
        document = {**_named(engine), "dimensions": answer.values.shape[1], "results": results}
        return EmbedResponse.model_validate(document)

    @bentoml.api(route="/v1/embeddings", input_spec=posted(EmbeddingsRequest))  # type: ignore[untyped-decorator]
    async def embeddings(self, body: EmbeddingsRequest, /, ctx: bentoml.Context) -> EmbeddingsResponse:
        """Return the vector of each text in OpenAI's form."""
        return embeddings(body, *await self._embed(body.input, body.model, ctx))

    @bentoml.api(route="/predict", input_spec=posted(PredictRequest))  # type: ignore[untyped-decorator]
    async def predict(self, body: PredictRequest, /, ctx: bentoml.Context) -> PredictResponse:
        """Return the labels of each text or pair in TEI's form."""
        inputs = [tuple(item) for item in body.inputs]
        self._check(inputs, ctx)
        engine = self._engine(Need("classification", "pair" if len(inputs[0]) == 2 else "text"), body.recipe, ctx)
        return predictions(body, engine, await self._ask(engine.answer, inputs, ctx))

    async def _embed(self, texts: Sequence[str], recipe: str | None, ctx: bentoml.Context) -> tuple[Engine, Answer]:
        self._check([(text,) for text in texts], ctx)
        engine = self._engine(Need(vectors=True), recipe, ctx)
        return engine, await self._ask(engine.vectors, texts, ctx)

    async def _ask(self, ask: EngineMethod, inputs: Sequence[Any], ctx: bentoml.Context, **options: Any) -> Answer:
        """Return the answer of an engine; the response tells how long it took."""
        answer = await self._sharing.answer(ask, inputs, alone=self._alone(ctx), **options)
        ctx.request.state.timing = answer.timing
        return answer

    def _check(self, inputs: Sequence[tuple[str, ...]], ctx: bentoml.Context) -> None:
        """Raise ApiError if there are too many inputs or one is too long; record their number for the log."""
        ctx.request.state.inputs = len(inputs)
        if len(inputs) > SETTINGS.max_inputs:
            text = f"{len(inputs)} inputs are too many: at most {SETTINGS.max_inputs} per request"
            raise ApiError(ErrorType.INVALID_REQUEST, text)
        for index, texts in enumerate(inputs):
            longest = max(map(len, texts))
            if longest > SETTINGS.max_characters:
                text = f"{longest} characters are too many: at most {SETTINGS.max_characters} per text"
                raise ApiError(ErrorType.INVALID_REQUEST, text, index)

    def _alone(self, ctx: bentoml.Context) -> bool:
        """Return whether the deployer sends the request: golden sentences must be computed alone, as at export."""
        return self._live.deploys(ctx.request.headers.get("authorization"))

    def _engine(self, need: Need, recipe: str | None, ctx: bentoml.Context) -> Engine:
        """Return the engine for a request, whose headers may address a release or ask for a recent deployment."""
        headers = ctx.request.headers
        if (wanted := headers.get(DEPLOYMENT_HEADER)) is not None:
            self._live.check_deployment(wanted)
        # Read before the engine is chosen: a swap in between only makes the answer newer than the number.
        ctx.request.state.deployment = self._live.follower.snapshot.number
        if (named := headers.get(RELEASE_HEADER)) is not None:
            return self._live.addressed(named, need, headers.get("authorization"))
        return self._live.select(need, recipe)


def _named(engine: Engine) -> dict[str, Any]:
    """Return the fields of a response that describe its release."""
    card = engine.card
    return {"recipe": card.recipe, "release": card.id, "sample": card.sample}


def _results(engine: Engine, answer: Answer) -> list[dict[str, Any]]:
    """Return the results of a response, in the form of the release's kind of task."""
    card, task = engine.card, engine.card.task
    rows = zip(answer.values.tolist(), _readings(answer), strict=True)
    return [{**task.result(card, row), **read} for row, read in rows]


def _readings(answer: Answer) -> Iterator[dict[str, Any]]:
    """Yield the fields of each result that describe how its input was read."""
    for truncated, share in zip(answer.truncated.tolist(), answer.unknown_share.tolist(), strict=True):
        yield {"truncated": truncated, "unknown_share": share}


cast("bentoml.Service[Any]", Saebyeok).add_asgi_middleware(
    Gate,
    admit=admit,
    body_bytes=SETTINGS.max_body_bytes,
    seconds=SETTINGS.request_seconds,
    limit=KeyLimit(SETTINGS.max_per_key if api_keys(SETTINGS) else 0),
)
