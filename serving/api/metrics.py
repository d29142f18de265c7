"""Metrics at `/metrics` in addition to BentoML's: queueing, tokenizing and inference time, batches, deployed releases.

BentoML collects the metrics of all workers from files (`counter_files.py`). It sets `PROMETHEUS_MULTIPROC_DIR`
before it starts a worker, because the variable must be set before prometheus_client is imported.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.store.releases import Card
from serving.client.responses import ReleasesResponse
from serving.engine.observer import Observer

#: Histogram buckets, from the fastest response of a small model to the timeout.
SECOND_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Metrics of one worker, labelled by recipe; a label per release would add series with every deployment."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics in `registry`, which accepts each name once; the default is the one BentoML reads."""

        def seconds(name: str, text: str, labels: Iterable[str] = ("recipe",)) -> Histogram:
            return Histogram(f"saebyeok_{name}_seconds", text, labels, buckets=SECOND_BUCKETS, registry=registry)

        def tokens(name: str, text: str) -> Counter:
            return Counter(f"saebyeok_{name}_tokens", text, ("recipe",), registry=registry)

        self._queue = seconds("queue", "time from a valid request to the start of its batch", ())
        self.tokenizing = seconds("tokenizing", "time to tokenize the texts of a batch of requests")
        self.inference = seconds("inference", "time to compute one sub-batch in ONNX Runtime")
        self.rows = Histogram(
            "saebyeok_batch_rows", "texts or pairs per sub-batch", ("recipe",), buckets=ROW_BUCKETS, registry=registry
        )
        self.tokens = tokens("real", "computed tokens of texts, without padding")
        self.padding = tokens("padding", "computed padding tokens, in short rows and small batches")

    def queued(self, seconds: float) -> None:
        """Record the time that a request waited in the queue."""
        self._queue.observe(seconds)

    def observer(self, card: Card) -> Observer:
        """Return the observer for the engine of a release."""
        return RecipeObserver(self, card.recipe)


class RecipeObserver(Observer):
    """Record the work of the engines of one recipe."""

    def __init__(self, metrics: Metrics, recipe: str) -> None:
        """Create the recipe's series."""
        self._tokenizing = metrics.tokenizing.labels(recipe)
        self._inference = metrics.inference.labels(recipe)
        self._rows = metrics.rows.labels(recipe)
        self._tokens = metrics.tokens.labels(recipe)
        self._padding = metrics.padding.labels(recipe)

    def tokenized(self, seconds: float) -> None:
        """Record the time to tokenize one batch."""
        self._tokenizing.observe(seconds)

    def computed(self, rows: int, tokens: int, padding: int, seconds: float) -> None:
        """Record one computed sub-batch."""
        self._inference.observe(seconds)
        self._rows.observe(rows)
        self._tokens.inc(tokens)
        self._padding.inc(padding)


def served(releases: ReleasesResponse) -> str:
    """Return the deployed releases in Prometheus' text format; generated per scrape, so old releases disappear."""
    registry = CollectorRegistry()
    registry.register(_Served(releases))
    return generate_latest(registry).decode()


class _Served(Collector):
    def __init__(self, releases: ReleasesResponse) -> None:
        self._releases = releases

    def collect(self) -> Iterable[GaugeMetricFamily]:
        deployment = self._releases.deployment
        yield GaugeMetricFamily("saebyeok_deployment", "number of the deployment; 0: none yet", deployment)
        workers = self._releases.workers
        yield GaugeMetricFamily("saebyeok_workers", "live worker processes", len(workers))
        moved = sum(worker.deployment == deployment for worker in workers)
        yield GaugeMetricFamily("saebyeok_workers_moved", "live workers that serve this deployment", moved)
        failing = sum(worker.problem is not None for worker in workers)
        yield GaugeMetricFamily("saebyeok_workers_failing", "live workers that cannot read the deployments", failing)
        newest = max((worker.newest for worker in workers), default=deployment)
        yield GaugeMetricFamily("saebyeok_newest_deployment", "newest deployment that a worker has read", newest)
        labels = ("recipe", "release", "provider", "sample")
        info = GaugeMetricFamily("saebyeok_release_info", "1 for each live release", labels=labels)
        for recipe, release in self._releases.recipes.items():
            info.add_metric((recipe, release.release, release.provider, str(release.sample).lower()), 1)
        yield info
