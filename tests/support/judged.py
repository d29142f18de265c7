"""Decisions on the model of a small pipeline, with other thresholds or other answers to the gate rows."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.stages.decide import decide
from pipeline.store.artifacts import Artifact
from pipeline.store.checks import Check
from pipeline.store.decisions import Decision, read_decision
from tests.support.gate_releases import release_of, republished
from tests.support.small_pipeline import Road
from tests.support.tiny_releases import linked


def held_to(road: Road, floor: float, margin: float = 0.05) -> Road:
    """Return the same pipeline with every threshold at `floor` and no behavioural bound."""
    update = {"floors": dict.fromkeys(road.recipe.metrics, floor), "margin": margin}
    update["behaviour"] = dict.fromkeys(road.recipe.gate.behaviour, 0.0)
    gate = road.recipe.gate.model_copy(update=update)
    changed = Road(replace(road.job, recipe=road.recipe.model_copy(update={"gate": gate})), road.rows)
    # The earlier stages are reused.
    vars(changed).update({name: value for name, value in vars(road).items() if isinstance(value, Artifact)})
    return changed


def decide_on(road: Road, champion: Artifact | None, evaluated: Artifact | None = None) -> Decision:
    """Return the decision on the pipeline's own model, or on `evaluated`."""
    return read_decision(decide(road.job, evaluated or road.evaluated, champion))


def compared(decision: Decision) -> list[Check]:
    """Return its comparisons."""
    return [check for check in decision.checks if check.kind == "comparison"]


def gate_rows(road: Road) -> tuple[Any, Any]:
    """Return the labels of the gate rows, and the answers of the pipeline's own model."""
    table = pd.read_parquet(road.evaluated.path / "gate.parquet")
    return table["label"].to_numpy(), table["prediction"].to_numpy()


def answered(evaluated: Artifact, answers: Any, *, labels: Any = None, **changes: Any) -> Artifact:
    """Return the same evaluation with other answers to the gate rows, and other labels if given."""
    table = pd.read_parquet(evaluated.path / "gate.parquet").assign(prediction=answers)
    content = io.BytesIO()
    (table if labels is None else table.assign(label=labels)).to_parquet(content, index=False)
    return republished(evaluated, files={"gate.parquet": content.getvalue()}, **changes)


def inputs_of(evaluated: Artifact, **others: Artifact) -> dict[str, Any]:
    """Return the inputs of an evaluation, with replacements."""
    return {name: item.model_dump() for name, item in evaluated.manifest.inputs.items()} | linked(**others)


def challenger(road: Road, wins: int, losses: int) -> Artifact:
    """Return the evaluation of another run's model that differs from the pipeline's own in some gate rows."""
    labels, answers = gate_rows(road)
    right, ours = answers == labels, answers.copy()
    for turned in (np.flatnonzero(right)[:losses], np.flatnonzero(~right)[:wins]):
        ours[turned] = 1 - ours[turned]
    return answered(road.evaluated, ours, inputs=inputs_of(road.evaluated, trained=republished(road.trained)))


def with_validation(road: Road, **figures: Any) -> Artifact:
    """Return the release that this pipeline would have made from data with these `figures`."""
    validated = republished(road.validated, figures=road.validated.manifest.figures | figures)
    tokenized = republished(road.tokenized, inputs=linked(validated=validated))
    return release_of(republished(road.trained, inputs=linked(tokenized=tokenized)))
