"""The metrics of docs/reference/metrics.md."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from docs.generated import REFERENCE, table
from pipeline.recipes.kinds.registry import KINDS
from serving.api.metrics import Metrics, served
from serving.client.responses import ReleasesResponse

NOTHING = ReleasesResponse(
    store=None, deployment=0, created=None, run=None, reason=None, recipes={}, staged=[], worker=0, workers=[]
)
PAGE = REFERENCE / "metrics.md"


def sections() -> dict[str, str]:
    """Return the metrics of each kind of recipe, and those of the service."""
    return {
        "models": table(("`kind`", "`inputs`", "`model.objective`", "Metrics; the first one decides"), _kinds()),
        "service": table(("Metric", "Type", "Labels", "Meaning"), _service()),
    }


def _kinds() -> Iterator[tuple[str, str, str, str]]:
    for (kind, inputs, objective), found in KINDS.items():
        metrics = ", ".join(f"`{metric}`" for metric in found.metrics)
        yield f"`{kind}`", f"`{inputs}`", f"`{objective}`" if objective else "", metrics


def _service() -> Iterator[tuple[str, str, str, str]]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    labels = {
        item._name: ", ".join(f"`{name}`" for name in item._labelnames)
        for item in (metrics.tokenizing, metrics.inference, metrics.rows, metrics.tokens, metrics.padding)
    }
    for family in registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        yield f"`{family.name}{suffix}`", family.type, labels.get(family.name, ""), family.documentation
    for family in text_string_to_metric_families(served(NOTHING)):
        named = "`recipe`, `release`, `provider`, `sample`" if family.name == "saebyeok_release_info" else ""
        yield f"`{family.name}`", family.type, named, family.documentation
