"""Artifacts of a run as the gate reads them, made by hand: their figures and rows count, and there is no model."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.data.splits import place_of
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.figures import (
    BaseIdentity,
    EvaluationFigures,
    Figures,
    SeenData,
    TrainingFigures,
    ValidationFigures,
)
from pipeline.store.manifest import Input, Role
from tests.support.made_figures import evaluation

#: Fields of a training of the recipe `nsmc`.
TASK: dict[str, Any] = {"kind": "classification", "objective": None, "labels": ["negative", "positive"]}


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
    files: Mapping[str, bytes] | None = None,
    roles: Mapping[str, Role] | None = None,
    **inputs: Artifact,
) -> Artifact:
    """Publish an artifact with these figures, fields, inputs, tables (each a parquet file) and other files.

    `roles` are those of inputs that it is not made from.
    """
    with store.draft() as draft:
        for name, table in (tables or {}).items():
            content = io.BytesIO()
            table.to_parquet(content, index=False)
            (draft / f"{name}.parquet").write_bytes(content.getvalue())
        for name, content_of_file in (files or {}).items():
            (draft / name).write_bytes(content_of_file)
        links = {
            name: Input(ref=item.ref, key=item.key, role=(roles or {}).get(name, "made_from"))
            for name, item in inputs.items()
        }
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
    fields: Mapping[str, Any] = TASK,
    gate_share: float = 1.0,
    seen: SeenData | None = None,
    **tables: pd.DataFrame,
) -> Family:
    """Publish a release and its ancestors.

    `reached` has its metrics on every split of its own run, unless `figures` are those of its evaluation; `tables`
    (`gate`, `test`) are the evaluation's, `validated` and `trained` are artifacts that it shares with another release,
    and `fields` those of its training. With the default `gate_share`, it has seen no row; `seen` is what its training
    recorded, if it did.
    """
    data = ValidationFigures(train_rows=4000, test_rows=1000, sample=sample, cutoff=cutoff)
    validated = validated or made(store, "validate", data, recipe=recipe)
    tokenized = made(store, "tokenize", recipe=recipe, fields={"gate_share": gate_share}, validated=validated)
    trained = trained or made(store, "train", training(seen), recipe=recipe, fields=fields, tokenized=tokenized)
    figures = figures or evaluation(reached or {}, sample=sample)
    parents = {"validated": validated, "tokenized": tokenized, "trained": trained}
    evaluated = made(store, "evaluate", figures, recipe=recipe, tables=tables, **parents)
    release = made(store, "release", recipe=recipe, evaluated=evaluated, **parents)
    return Family(validated, trained, evaluated, release)


def training(seen: SeenData | None = None) -> TrainingFigures:
    """Return the figures of a training that recorded the data that it has seen, or did not."""
    figures = TrainingFigures(seconds=1.0, validation={}, base=BaseIdentity(base="scratch", revision=None))
    return figures.model_copy(update={"seen": seen}) if seen else figures


def gate_table(labels: Any, predictions: Any, texts: Sequence[str] | None = None) -> pd.DataFrame:
    """Return gate rows of different texts."""
    texts = texts or texts_between(0.0, 1.0, len(labels))
    return pd.DataFrame({"text": texts, "label": labels, "prediction": predictions})


def texts_between(low: float, high: float, count: int) -> list[str]:
    """Return texts without near copies whose places (`pipeline.data.splits`) are from `low` to below `high`."""
    # No digit is repeated three times in a row, which would make near copies.
    texts = ("-".join(str(number)) for number in itertools.count())
    return list(itertools.islice((text for text in texts if low <= place_of((text,)) < high), count))


def serve(*releases: Artifact) -> Deployment:
    """Make each release in turn the champion of its recipe, and return the last deployment."""
    log = DeploymentLog(releases[0].store)
    for release in releases:
        latest = log.latest()
        served = (latest.releases if latest else {}) | {release.manifest.recipe: release.ref}
        record = log.append(served, after=latest.number if latest else 0, run="night", reason="for a test")
    return record
