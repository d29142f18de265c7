"""Metrics: measured values and their format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer

from pipeline.store.artifacts import Store
from serving.api.metrics import Metrics, served
from serving.client.responses import LiveRelease, ReleasesResponse, WorkerState
from serving.engine.engine import EngineOptions
from serving.engine.variants import open_fastest
from tests.support.tiny_releases import MAX_LENGTH, SENTENCES, TinyModel


def reader(registry: CollectorRegistry) -> Callable[[str], float | None]:
    return partial(registry.get_sample_value, labels={"recipe": "nsmc"})


def real_lengths(release: Path, texts: list[str]) -> list[int]:
    tokenizer = Tokenizer.from_file(str(release / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    return [len(tokenizer.encode(text).ids) for text in texts]


def test_an_engine_counts_what_it_computes(store: Store, classifier: TinyModel) -> None:
    release = classifier.publish(store, "nsmc", key="a" * 16).path
    registry = CollectorRegistry()
    value = reader(registry)
    options = EngineOptions(threads=2, device="cpu", batch_tokens=32)
    engine = open_fastest(release, options, Metrics(registry).observer)
    assert value("saebyeok_real_tokens_total") == 0
    texts = [" ".join(["비가"] * words) for words in (4, 3, 9, 4, 3)]
    assert real_lengths(release, texts) == [6, 5, 11, 6, 5], "a token a word, and two more"
    engine.classify(texts)
    engine.classify(texts[:1])
    # A sixteenth of the 32 tokens of a batch, two, may be padding: 5, 5, 6 and 6 are filled up to 6, 11 is by itself,
    # and so is the single text.
    assert value("saebyeok_batch_rows_count") == value("saebyeok_inference_seconds_count") == 3
    assert value("saebyeok_batch_rows_sum") == 6
    assert value("saebyeok_real_tokens_total") == 5 + 5 + 6 + 6 + 11 + 6
    assert value("saebyeok_padding_tokens_total") == 1 + 1
    assert value("saebyeok_tokenizing_seconds_count") == 2
    assert value("saebyeok_tokenizing_seconds_sum") > 0  # type: ignore[operator]
    assert value("saebyeok_inference_seconds_sum") > 0  # type: ignore[operator]


def test_a_file_that_computes_no_padding_counts_none(store: Store, classifier: TinyModel, tmp_path: Path) -> None:
    release = classifier.publish(store, "nsmc", key="a" * 16).path
    directory = shutil.copytree(release, tmp_path / "packed")
    card = json.loads((directory / "card.json").read_bytes())
    card["variants"]["cpu"][0]["packed"] = True
    (directory / "card.json").write_text(json.dumps(card), encoding="utf-8")
    registry = CollectorRegistry()
    open_fastest(directory, EngineOptions(device="cpu"), Metrics(registry).observer).classify(SENTENCES)
    assert reader(registry)("saebyeok_real_tokens_total") == sum(real_lengths(release, list(SENTENCES)))
    assert reader(registry)("saebyeok_padding_tokens_total") == 0


def test_engines_of_one_recipe_count_together(store: Store, classifier: TinyModel, other_classifier: TinyModel) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for model, key in ((classifier, "a"), (other_classifier, "b")):
        release = model.publish(store, "nsmc", key=key * 16).path
        open_fastest(release, EngineOptions(threads=1, device="cpu"), metrics.observer).classify(["좋다"])
    assert reader(registry)("saebyeok_batch_rows_sum") == 2


def test_queue_time_is_observed() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert registry.get_sample_value("saebyeok_queue_seconds_count") == 0
    metrics.queued(0.5)
    assert registry.get_sample_value("saebyeok_queue_seconds_count") == 1
    assert registry.get_sample_value("saebyeok_queue_seconds_sum") == 0.5


def worker(pid: int, deployment: int, problem: str | None = None) -> WorkerState:
    now = datetime.now(UTC)
    return WorkerState(
        pid=pid,
        started=now,
        heartbeat=now,
        deployment=deployment,
        newest=8,
        live={},
        staged=[],
        problem=problem,
        problems=[],
    )


def test_metrics_show_the_current_releases() -> None:
    release = LiveRelease(
        release="nsmc-1", ref="release/nsmc/1/x", title="t", kind="classification", inputs="text", route="/classify",
        labels=[], score_range=None, similar_at=None, max_length=32, methods=[], vectors=False, sample=True, figures={},
        provider="CPUExecutionProvider",
        variant="int8",
        rates={},
        created=datetime.now(UTC),
    )  # fmt: skip
    state = ReleasesResponse(
        store=None, deployment=7, created=None, run=None, reason=None, recipes={"nsmc": release}, staged=[], worker=1,
        workers=[worker(1, 7), worker(2, 6, "the store is away"), worker(3, 7)],
    )  # fmt: skip
    samples = [item for family in text_string_to_metric_families(served(state)) for item in family.samples]
    assert {item.name: item.value for item in samples} == {
        "saebyeok_deployment": 7,
        "saebyeok_newest_deployment": 8,
        "saebyeok_workers": 3,
        "saebyeok_workers_moved": 2,
        "saebyeok_workers_failing": 1,
        "saebyeok_release_info": 1,
    }
    labels = {"recipe": "nsmc", "release": "nsmc-1", "provider": "CPUExecutionProvider", "sample": "true"}
    assert samples[-1].labels == labels
