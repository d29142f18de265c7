"""A road's model before the gate: held to other thresholds, with other answers to the gate rows, decided on."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.stages.decide import decide
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Check, Decision, read_decision
from tests.support.gate_releases import linked, release_of, republished
from tests.support.small_pipeline import Road


def held_to(road: Road, floor: float, margin: float = 0.05) -> Road:
    """The same road with every floor at `floor` and no behavioural bound."""
    update = {"floors": dict.fromkeys(road.recipe.metrics, floor), "margin": margin}
    update["behaviour"] = dict.fromkeys(road.recipe.gate.behaviour, 0.0)
    gate = road.recipe.gate.model_copy(update=update)
    changed = Road(replace(road.job, recipe=road.recipe.model_copy(update={"gate": gate})), road.rows)
    # What was made before is found again.
    vars(changed).update({name: value for name, value in vars(road).items() if isinstance(value, Artifact)})
    return changed


def decide_on(road: Road, champion: Artifact | None, evaluated: Artifact | None = None) -> Decision:
    """What is decided about the road's own model, or about `evaluated`."""
    return read_decision(decide(road.job, evaluated or road.evaluated, champion))


def compared(decision: Decision) -> list[Check]:
    """Its comparisons."""
    return [check for check in decision.checks if check.kind == "comparison"]


def gate_rows(road: Road) -> tuple[Any, Any]:
    """The labels of the gate rows, and what the road's own model answers."""
    table = pd.read_parquet(road.evaluated.path / "gate.parquet")
    return table["label"].to_numpy(), table["prediction"].to_numpy()


def answered(evaluated: Artifact, answers: Any, *, labels: Any = None, **changes: Any) -> Artifact:
    """The same evaluation with other answers to the gate rows, and other labels of them where given."""
    table = pd.read_parquet(evaluated.path / "gate.parquet").assign(prediction=answers)
    content = io.BytesIO()
    (table if labels is None else table.assign(label=labels)).to_parquet(content, index=False)
    return republished(evaluated, files={"gate.parquet": content.getvalue()}, **changes)


def inputs_of(evaluated: Artifact, **others: Artifact) -> dict[str, Any]:
    """The inputs of an evaluation, some of them replaced."""
    return {name: item.model_dump() for name, item in evaluated.manifest.inputs.items()} | linked(**others)


def challenger(road: Road, wins: int, losses: int) -> Artifact:
    """The evaluation of another night's model that differs from the road's own in so many gate rows."""
    labels, answers = gate_rows(road)
    right, ours = answers == labels, answers.copy()
    for turned in (np.flatnonzero(right)[:losses], np.flatnonzero(~right)[:wins]):
        ours[turned] = 1 - ours[turned]
    return answered(road.evaluated, ours, inputs=inputs_of(road.evaluated, trained=republished(road.trained)))


def with_validation(road: Road, **figures: Any) -> Artifact:
    """The champion that this road would have made from data that are otherwise in these `figures`."""
    validated = republished(road.validated, figures=road.validated.figures | figures)
    tokenized = republished(road.tokenized, inputs=linked(validated=validated))
    return release_of(republished(road.trained, inputs=linked(tokenized=tokenized)))
