"""What `/metrics` says beside BentoML's own: time in the queue, tokenizing and inference, sub-batches, what is served.

BentoML collects the workers' numbers from files, for which it must have set `PROMETHEUS_MULTIPROC_DIR` before
prometheus_client is imported: it does so before it starts a worker, which imports this.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.store.releases import Card
from serving.engine.observer import Observer
from serving.schemas import ReleasesResponse

#: From the fastest answer of a small model to the deadline.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One worker's numbers. They are by recipe: labels of releases would grow by one a night."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """`registry` takes each name once; the default is the one that BentoML reads."""

        def seconds(name: str, text: str, labels: Iterable[str] = ("recipe",)) -> Histogram:
            return Histogram(f"saebyeok_{name}_seconds", text, labels, buckets=SECONDS, registry=registry)

        def tokens(name: str, text: str) -> Counter:
            return Counter(f"saebyeok_{name}_tokens", text, ("recipe",), registry=registry)

        self._queue = seconds("queue", "from a valid request to the thread that answers it", ())
        self.tokenizing = seconds("tokenizing", "turning the texts of a batch of requests into tokens")
        self.inference = seconds("inference", "one sub-batch in ONNX Runtime")
        self.rows = Histogram(
            "saebyeok_batch_rows", "texts or pairs in a sub-batch", ("recipe",), buckets=ROWS, registry=registry
        )
        self.tokens = tokens("real", "tokens of texts that were computed")
        self.padding = tokens(
            "padding", "tokens that were computed for nothing, to fill up short rows and small batches"
        )

    def queued(self, seconds: float) -> None:
        """A request has waited so long for the thread that computes it."""
        self._queue.observe(seconds)

    def observer(self, card: Card) -> Observer:
        """The observer of the engine of a release."""
        return RecipeObserver(self, card.recipe)


class RecipeObserver(Observer):
    """Counts what the engines of one recipe do."""

    def __init__(self, metrics: Metrics, recipe: str) -> None:
        """The recipe's series exist from now on."""
        self._tokenizing = metrics.tokenizing.labels(recipe)
        self._inference = metrics.inference.labels(recipe)
        self._rows = metrics.rows.labels(recipe)
        self._tokens = metrics.tokens.labels(recipe)
        self._padding = metrics.padding.labels(recipe)

    def tokenized(self, seconds: float) -> None:
        """As the base class says."""
        self._tokenizing.observe(seconds)

    def computed(self, rows: int, tokens: int, padding: int, seconds: float) -> None:
        """As the base class says."""
        self._inference.observe(seconds)
        self._rows.observe(rows)
        self._tokens.inc(tokens)
        self._padding.inc(padding)


def served(releases: ReleasesResponse) -> str:
    """What is deployed, in Prometheus' text format: read when it is asked for, so that nothing outlives its release."""
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
        yield GaugeMetricFamily("saebyeok_workers", "worker processes that are alive", len(workers))
        moved = sum(worker.deployment == deployment for worker in workers)
        yield GaugeMetricFamily("saebyeok_workers_moved", "those of them that serve this deployment", moved)
        failing = sum(worker.problem is not None for worker in workers)
        yield GaugeMetricFamily("saebyeok_workers_failing", "those that cannot follow the deployments", failing)
        labels = ("recipe", "release", "provider", "sample")
        info = GaugeMetricFamily("saebyeok_release_info", "1 for each release that is served", labels=labels)
        for recipe, release in self._releases.recipes.items():
            info.add_metric((recipe, release.release, release.provider, str(release.sample).lower()), 1)
        yield info
