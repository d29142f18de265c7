"""The BentoML service: routes over whatever is deployed."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast

import bentoml

from pipeline.job import keep_libraries_home, open_store
from pipeline.releases import Deployment
from pipeline.settings import Settings, load_settings
from serving.auth import deploy_token
from serving.control import RELEASE_HEADER, Live, control_app
from serving.engine import Answer, Engine, EngineOptions
from serving.live import BakedSource, Follower, LogSource
from serving.metrics import Metrics, served
from serving.middleware import ErrorShape, answers_errors
from serving.schemas import (
    ClassifyRequest,
    ClassifyResponse,
    ClassifyResult,
    SimilarityRequest,
    SimilarityResponse,
    SimilarityResult,
)

#: Lies beside the packages in a Bento, and nowhere else: the deployment that was baked in.
BAKED = Path(__file__).resolve().parent.parent / "deployment.json"
# BentoML reads the number of workers while it imports this module.
SETTINGS = load_settings()
keep_libraries_home(SETTINGS)


def _openapi() -> dict[str, Any]:
    document: dict[str, Any] = _service().openapi_spec.asdict()
    return document


def _service() -> bentoml.Service[Any]:
    """What the decorator makes of the class, which the type checker does not see."""
    return cast("bentoml.Service[Any]", Saebyeok)


CONTROL = control_app(_openapi)


def end_with_parent() -> None:
    """Have Linux end this worker when BentoML's supervisor dies: it is in a session of its own, and would stay."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def open_live(settings: Settings, threads: int, metrics: Metrics) -> Live:
    """What this worker serves: the deployment baked into a Bento, or else the log in the store."""
    options = EngineOptions.from_settings(settings, threads=threads)
    if BAKED.is_file():
        baked = BakedSource(Deployment.model_validate_json(BAKED.read_bytes()))
        return Live(Follower(baked, options, metrics.observer), token="")
    source = LogSource(settings, open_store(settings))
    return Live(Follower(source, options, metrics.observer), deploy_token(settings))


@bentoml.service(name="Saebyeok", workers=SETTINGS.workers, traffic={"timeout": 60})
@bentoml.asgi_app(CONTROL, name="control")
class Saebyeok:
    """Korean BERT models, retrained overnight and served by morning."""

    def __init__(self) -> None:
        """Load what is deployed before the first request is taken."""
        end_with_parent()
        threads = SETTINGS.threads or max(1, (os.cpu_count() or 1) // SETTINGS.workers)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._metrics = Metrics()
        self._live = open_live(SETTINGS, threads, self._metrics)
        self._live.follower.start()
        CONTROL.state.live = self._live
        # What is loaded now stays: the collector need not walk it again during requests.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Withdraw this worker's acknowledgement."""
        self._live.follower.close()
        self._pool.shutdown()

    async def __is_ready__(self) -> bool:
        """Whether a deployment is loaded."""
        return self._live.follower.snapshot.deployment is not None

    def __metrics__(self, text: str) -> str:
        """What BentoML answers at /metrics: `text` is what it has collected of all workers."""
        return text + served(self._live.releases())

    @bentoml.api(route="/classify")  # type: ignore[untyped-decorator]
    @answers_errors
    async def classify(self, body: ClassifyRequest, /, ctx: bentoml.Context) -> ClassifyResponse:
        """Class and probabilities of each text."""
        engine = self._engine("classification", body.recipe, ctx)
        answer = await self._answer(engine, [(text,) for text in body.texts])
        card = engine.card
        labels = card.labels
        results = []
        for row, truncated in zip(answer.values.tolist(), answer.truncated.tolist(), strict=True):
            best = max(range(len(labels)), key=row.__getitem__)
            probabilities = dict(zip(labels, row, strict=True))
            results.append(
                ClassifyResult(label=labels[best], score=row[best], probabilities=probabilities, truncated=truncated)
            )
        return ClassifyResponse(recipe=card.recipe, release=card.id, sample=card.sample, results=results)

    @bentoml.api(route="/similarity")  # type: ignore[untyped-decorator]
    @answers_errors
    async def similarity(self, body: SimilarityRequest, /, ctx: bentoml.Context) -> SimilarityResponse:
        """How alike the two sentences of each pair are."""
        engine = self._engine("regression", body.recipe, ctx)
        answer = await self._answer(engine, [(left, right) for left, right in body.pairs])
        card = engine.card
        cut = card.similar_at or 0.0
        rows = zip(answer.values[:, 0].tolist(), answer.truncated.tolist(), strict=True)
        results = [SimilarityResult(score=score, similar=score >= cut, truncated=cut_off) for score, cut_off in rows]
        return SimilarityResponse(recipe=card.recipe, release=card.id, sample=card.sample, results=results)

    def _engine(
        self, kind: Literal["classification", "regression"], recipe: str | None, ctx: bentoml.Context
    ) -> Engine:
        named = ctx.request.headers.get(RELEASE_HEADER)
        if named is None:
            return self._live.select(kind, recipe)
        self._live.authorize(ctx.request.headers.get("authorization"))
        return self._live.addressed(named, kind)

    async def _answer(self, engine: Engine, inputs: Sequence[tuple[str, ...]]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._metrics.queued(engine.answer), inputs)


_service().add_asgi_middleware(ErrorShape)
