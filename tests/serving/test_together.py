"""Concurrent requests to the real service, while releases change and others fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.job import open_store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import Card
from serving.api.auth import deploy_token
from serving.client.responses import ClassifyResponse, EmbedResponse, ScoreResponse, SimilarityResponse
from serving.engine.engine import Engine, EngineOptions
from tests.support.running_service import Service, eventually, serving
from tests.support.tiny_releases import SENTENCES, TinyModel

pytestmark = pytest.mark.server

CROWD = 32
TEXTS = [f"{SENTENCES[at % len(SENTENCES)]} {at}" for at in range(CROWD)]
PAIRS = [[TEXTS[at], TEXTS[at - 1]] for at in range(CROWD)]
#: Keeps the only thread busy while other requests arrive.
HEAVY = {"texts": [SENTENCES[-1]] * 2_000}
#: Faults of some requests, and the index in their errors.
BAD: list[tuple[dict[str, Any], int | None]] = [
    ({"texts": ["가", 1]}, 1),
    ({"texts": ["가", "나", "다" * 10_001]}, 2),
    ({"text": ["가"]}, None),
]


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, classifier: TinyModel, sentence_encoder: TinyModel, text_scorer: TinyModel
) -> Iterator[Service]:
    """A service of one thread that computes each text separately, because int8 answers depend on the batch."""
    env = {
        "SAEBYEOK_WORKERS": "1",
        "SAEBYEOK_THREADS": "1",
        "SAEBYEOK_BATCH_TOKENS": "1",
        "SAEBYEOK_MAX_INPUTS": "10000",
        "SAEBYEOK_DEVICE": "cpu",
    }
    with serving(tmp_path_factory.mktemp("alone"), env, classifier, sentence_encoder, text_scorer) as service:
        yield service


def engine(service: Service, recipe: str) -> Engine:
    """Return a separate engine of the live release."""
    store = open_store(service.settings)
    latest = DeploymentLog(store).latest()
    assert latest is not None
    return Engine(store.open(latest.releases[recipe]).path, EngineOptions(threads=1, device="cpu", batch_tokens=1))


def value(service: Service, name: str, **labels: str) -> float:
    """Return the sum of a metric over all labels."""
    text = httpx.get(f"{service.settings.service_url}/metrics").text
    samples = [item for family in text_string_to_metric_families(text) for item in family.samples]
    return sum(item.value for item in samples if item.name == name and item.labels.items() >= labels.items())


def ask_together(service: Service, *requests: tuple[str, object]) -> list[httpx.Response]:
    """Send requests concurrently and return the responses."""

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.settings.service_url, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(client.post(path, json=body) for path, body in requests))

    return asyncio.run(ask())


def ask_behind_a_heavy_one(service: Service, *requests: tuple[str, object]) -> list[httpx.Response]:
    """Send requests concurrently while the only thread computes another, and return the responses."""
    begun = value(service, "saebyeok_queue_seconds_count")
    with ThreadPoolExecutor(1) as pool:
        heavy = pool.submit(ask_together, service, ("/classify", HEAVY))
        eventually("the thread is busy", lambda: value(service, "saebyeok_queue_seconds_count") > begun, pause=0.0)
        answers = ask_together(service, *requests)
        (first,) = heavy.result()
    assert first.status_code == 200
    return answers


def test_concurrent_requests_get_their_own_answers(alone: Service) -> None:
    wanted = engine(alone, "nsmc").classify(TEXTS).tolist()
    singles = [("/classify", {"texts": [text]}) for text in TEXTS]
    bad = [("/classify", body) for body, _ in BAD]
    calls = "saebyeok_tokenizing_seconds_count"

    def shared() -> bool:
        before = value(alone, calls)
        found = ask_behind_a_heavy_one(alone, *singles, *bad)
        answers, refused = found[:CROWD], found[CROWD:]
        for answer, row in zip(answers, wanted, strict=True):
            (result,) = answer.json()["results"]
            assert list(result["probabilities"].values()) == pytest.approx(row, abs=1e-6)
        for answer, (_, index) in zip(refused, BAD, strict=True):
            assert (answer.status_code, answer.json()["error"]["index"]) == (422, index)
        return value(alone, calls) - before < 1 + CROWD

    eventually("some of them are computed together", shared)


def test_unlike_requests_share_the_thread_and_no_batch(alone: Service) -> None:
    encoder = engine(alone, "klue-sts")
    scores = {
        method: encoder.answer([(left, right) for left, right in PAIRS], method=method).values[:, 0].tolist()
        for method in encoder.methods
    }
    assert len(scores) == 2
    vectors = encoder.embed(TEXTS).tolist()
    compared = [("/similarity", {"pairs": [pair], "method": method}) for pair in PAIRS for method in scores]
    embedded = [("/embed", {"texts": [text]}) for text in TEXTS]
    answers = ask_behind_a_heavy_one(alone, *compared, *embedded)
    found = [answer.json()["results"][0] for answer in answers]
    wanted = [row for pair in zip(*scores.values(), strict=True) for row in pair]
    assert [result["score"] for result in found[: len(wanted)]] == pytest.approx(wanted, abs=1e-5)
    for result, vector in zip(found[len(wanted) :], vectors, strict=True):
        assert result["vector"] == pytest.approx(vector, abs=1e-6)


def test_every_response_matches_its_schema_exactly(alone: Service) -> None:
    asked = [
        ("/classify", {"texts": TEXTS}, ClassifyResponse),
        ("/similarity", {"pairs": PAIRS}, SimilarityResponse),
        ("/score", {"texts": TEXTS}, ScoreResponse),
        ("/embed", {"texts": TEXTS}, EmbedResponse),
        ("/classify", {"texts": []}, ClassifyResponse),
        ("/similarity", {"pairs": []}, SimilarityResponse),
        ("/score", {"texts": []}, ScoreResponse),
        ("/embed", {"texts": []}, EmbedResponse),
    ]
    for path, body, model in asked:
        (answer,) = ask_together(alone, (path, body))
        assert answer.headers["content-type"] == "application/json"
        assert model.model_validate_json(answer.content, strict=True).model_dump(mode="json") == answer.json()


def test_answers_match_their_release_during_changes(alone: Service, other_classifier: TinyModel) -> None:
    store = open_store(alone.settings)
    log = DeploymentLog(store)
    first = log.latest()
    assert first is not None
    other = other_classifier.publish(store, "nsmc", key="o" * 16).ref
    refs = [first.releases["nsmc"], other]
    truth = {}
    for ref in refs:
        own = Engine(store.open(ref).path, EngineOptions(threads=1, device="cpu", batch_tokens=1))
        truth[own.card.id] = own.classify(TEXTS)[:, 1].tolist()
    seen: set[str] = set()

    def ask() -> None:
        answers = ask_together(alone, *(("/classify", {"texts": [text]}) for text in TEXTS))
        for answer, at in zip(answers, range(CROWD), strict=True):
            body = answer.json()
            positive = body["results"][0]["probabilities"]["positive"]
            assert positive == pytest.approx(truth[body["release"]][at], abs=1e-6)
            seen.add(body["release"])

    with ThreadPoolExecutor(1) as pool:
        for number in range(first.number, first.number + 4):
            log.append({**first.releases, "nsmc": refs[(number + 1) % 2]}, after=number, run="test", reason="a swap")
            moving = pool.submit(
                eventually,
                "the worker has moved",
                lambda: [item.deployment for item in alone.client.releases().workers] == [number + 1],  # noqa: B023
            )
            while not moving.done():
                ask()
            moving.result()
            ask()
    assert seen == truth.keys()
    log.append(first.releases, after=first.number + 4, run="test", reason="as before")
    eventually("it is as before", lambda: alone.client.releases().recipes["nsmc"].ref == first.releases["nsmc"])


@dataclass(frozen=True)
class Mislabelled(TinyModel):
    """Publish a model whose card has fewer labels than the model has classes."""

    def _card(self, recipe: str, key: str, *, sample: bool, lies: bool) -> Card:
        return super()._card(recipe, key, sample=sample, lies=lies).model_copy(update={"labels": ("one",)})


def test_unexpected_error_is_counted_without_details(alone: Service, classifier: TinyModel) -> None:
    store = open_store(alone.settings)
    broken = Mislabelled(classifier.directory, classifier.head).publish(store, "nsmc", key="m" * 16)
    alone.client.stage(broken.ref)
    eventually("it is staged", lambda: alone.client.releases().workers[0].staged == [broken.ref])
    failed = {"endpoint": "/classify", "http_response_code": "500"}
    before = value(alone, "bentoml_service_request_total", **failed)
    headers = {
        "Authorization": f"Bearer {deploy_token(alone.settings)}",
        "X-Saebyeok-Release": broken.ref,
        "X-Request-Id": "unforeseen",
    }
    answer = httpx.post(f"{alone.settings.service_url}/classify", json={"texts": ["비밀"]}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "internal")
    assert "ValueError" not in answer.text
    assert value(alone, "bentoml_service_request_total", **failed) == before + 1
    eventually("the log has it", lambda: "ValueError" in alone.log.read_text())
    assert "비밀" not in alone.log.read_text()
    alone.client.unstage(broken.ref)
