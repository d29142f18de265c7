"""Artifacts of a run as the gate reads them, made by hand: their figures and rows count, and there is no model."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.figures import EvaluationFigures, Figures, ValidationFigures
from tests.support.made_figures import evaluation


@dataclass(frozen=True)
class Parrot:
    """A model with the labels of `recipe` that always answers `outputs`, or raises it if it is an error."""

    recipe: Recipe
    outputs: Any

    def answer(self, rows: pd.DataFrame) -> Any:
        if isinstance(self.outputs, Exception):
            raise self.outputs
        assert len(self.outputs) == len(rows)
        return self.outputs


@dataclass(frozen=True)
class Family:
    """A release and its ancestors."""

    validated: Artifact
    trained: Artifact
    evaluated: Artifact
    release: Artifact


def made(
    store: Store,
    kind: str,
    figures: Figures | None = None,
    *,
    recipe: str = "nsmc",
    fields: Mapping[str, Any] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    **inputs: Artifact,
) -> Artifact:
    """Publish an artifact with these figures, fields, inputs and tables (each a parquet file)."""
    with store.draft() as draft:
        for name, table in (tables or {}).items():
            content = io.BytesIO()
            table.to_parquet(content, index=False)
            (draft / f"{name}.parquet").write_bytes(content.getvalue())
        links = {name: {"ref": item.ref, "key": item.key} for name, item in inputs.items()}
        told: dict[str, Any] = {"fields": dict(fields or {}), "figures": figures.document() if figures else {}}
        return store.publish(draft, kind, recipe, "0" * 16, run="night", inputs=links, **told)


def family(
    store: Store,
    *,
    recipe: str = "nsmc",
    sample: bool = True,
    cutoff: str | None = None,
    reached: Mapping[str, float] | None = None,
    figures: EvaluationFigures | None = None,
    validated: Artifact | None = None,
    trained: Artifact | None = None,
    fields: Mapping[str, Any] | None = None,
    **tables: pd.DataFrame,
) -> Family:
    """Publish a release and its ancestors.

    `reached` has its metrics on every split of its own run, unless `figures` are those of its evaluation; `tables`
    (`gate`, `test`) are the evaluation's, `validated` and `trained` are artifacts that it shares with another release,
    and `fields` those of its training.
    """
    data = ValidationFigures(train_rows=4000, test_rows=1000, sample=sample, cutoff=cutoff)
    validated = validated or made(store, "validate", data, recipe=recipe)
    tokenized = made(store, "tokenize", recipe=recipe, validated=validated)
    trained = trained or made(store, "train", recipe=recipe, fields=fields, tokenized=tokenized)
    figures = figures or evaluation(reached or {}, sample=sample)
    parents = {"validated": validated, "tokenized": tokenized, "trained": trained}
    evaluated = made(store, "evaluate", figures, recipe=recipe, tables=tables, **parents)
    release = made(store, "release", recipe=recipe, evaluated=evaluated, **parents)
    return Family(validated, trained, evaluated, release)


def serve(*releases: Artifact) -> Deployment:
    """Make each release in turn the champion of its recipe, and return the last deployment."""
    log = DeploymentLog(releases[0].store)
    for release in releases:
        latest = log.latest()
        served = (latest.releases if latest else {}) | {release.manifest.recipe: release.ref}
        record = log.append(served, after=latest.number if latest else 0, run="night", reason="for a test")
    return record
