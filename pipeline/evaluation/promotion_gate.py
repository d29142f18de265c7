"""Promotion gate: decide by thresholds, behavioural tests and earlier models whether a model may be released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.champions import Best, load_rival, validation_of
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.checks import (
    AgeCheck,
    BehaviourCheck,
    Check,
    ComparisonCheck,
    EarlierModelCheck,
    RivalName,
    SampleCheck,
    TaskCheck,
    ThresholdCheck,
)
from pipeline.store.decisions import Decision
from pipeline.store.figures import Estimate, EvaluationFigures, ValidationFigures
from pipeline.store.manifest import attempt_of

#: Fewest gate rows for a comparison of two models: agreement on a handful of rows proves nothing.
FEWEST = 30
Numbers = np.ndarray[Any, Any]


def make_decision(
    recipe: Recipe, figures: EvaluationFigures, compared: Sequence[Check], champion: Artifact | None, best: Best
) -> Decision:
    """Return the decision on an evaluation's `figures` and the comparisons; every check must pass."""
    checks = (*_thresholds(recipe, figures), *_behaviour(recipe, figures), *compared)
    return Decision(
        promote=all(check.passed for check in checks),
        champion=champion.ref if champion else None,
        best=best.release.ref if best.release else None,
        notes=best.notes,
        checks=checks,
    )


def compare(recipe: Recipe, labels: Numbers, ours: Numbers, theirs: Numbers, rival: RivalName) -> ComparisonCheck:
    """Return the non-inferiority check of `ours` against `theirs` on the first metric, with the recipe's margin.

    It passes if the lower end of the difference's interval is at least minus the margin. It fails on NaN and on fewer
    than `FEWEST` rows.
    """
    # Imported here: without a champion there is no comparison, and importing SciPy's statistics takes a second.
    from pipeline.tasks.registry import task_of

    difference = Estimate.model_validate(task_of(recipe).difference(labels, ours, theirs))
    worst = difference.low
    return ComparisonCheck(
        value=worst,
        bound=-recipe.gate.margin,
        passed=worst >= -recipe.gate.margin and len(labels) >= FEWEST,
        estimate=difference,
        metric=recipe.metrics[0],
        rival=rival,
        rows=len(labels),
        fewest=FEWEST,
    )


def gate_rows(evaluated: Artifact) -> pd.DataFrame:
    """Return the gate rows of an evaluation, with its predictions."""
    return pd.read_parquet(evaluated.path / "gate.parquet")


def is_same_model(evaluated: Artifact, champion: Artifact) -> bool:
    """Return whether both evaluations are of the same train artifact."""
    return champion.input_ref("trained") == evaluated.input_ref("trained")


def _thresholds(recipe: Recipe, figures: EvaluationFigures) -> list[ThresholdCheck]:
    checks = []
    for metric in recipe.metrics:
        figure, floor = figures.test_without_train_texts[metric], recipe.gate.floor_of(metric)
        unset = metric not in recipe.gate.floors
        checks.append(
            ThresholdCheck(
                value=figure.value,
                bound=floor,
                # NaN fails the comparison.
                passed=figure.value >= floor and not unset,
                unset=unset,
                estimate=figure,
                metric=metric,
                sample=recipe.sample,
                new_texts=True,
            )
        )
    return checks


def _behaviour(recipe: Recipe, figures: EvaluationFigures) -> list[BehaviourCheck]:
    checks = []
    for capability, bound in recipe.gate.behaviour.items():
        rate = figures.behaviour[capability].rate
        passed = rate.value >= bound
        checks.append(
            BehaviourCheck(value=rate.value, bound=bound, passed=passed, estimate=rate, capability=capability)
        )
    return checks


def compare_with_rivals(recipe: Recipe, evaluated: Artifact, champion: Artifact | None, best: Best) -> list[Check]:
    """Compare an evaluated model with the champion and the best release before it, on the gate rows.

    No checks if there is no champion, or if the champion is this very model.
    """
    if champion is None or is_same_model(evaluated, champion):
        return []
    if bar := bar_challenger(recipe, evaluated, champion):
        return [bar]
    rows = gate_rows(evaluated)
    rivals: dict[RivalName, Numbers | None] = {
        "champion": load_rival(recipe, champion).answers(recipe, rows),
        "best": best.answers,
    }
    labels, ours = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    return [compare(recipe, labels, ours, theirs, rival) for rival, theirs in rivals.items() if theirs is not None]


def bar_challenger(recipe: Recipe, evaluated: Artifact, champion: Artifact) -> Check | None:
    """Return a failed check if the challenger may not replace the champion, whatever the two predict.

    It may not if it was trained on the sample and the champion on real data, if the champion has newer data, if the
    champion was trained later on the same data, or, unless a person approves it, if the two solve different tasks.
    """
    if recipe.sample and not ValidationFigures.read(validation_of(champion)).sample:
        # It would win on the sample's own rows and then serve real users.
        return SampleCheck(value=0.0, bound=1.0, passed=False)
    return _older(evaluated, champion) or _replaced(evaluated, champion) or _incomparable(recipe, champion)


def _older(evaluated: Artifact, champion: Artifact) -> AgeCheck | None:
    """Return a failed check if the champion has newer data, so that a backfilled run never replaces it."""
    theirs = ValidationFigures.read(validation_of(champion)).cutoff
    ours = ValidationFigures.read(evaluated.input("validated")).cutoff
    if theirs is None or (ours is not None and ours >= theirs):
        return None
    days = (ours - theirs).days if ours else math.nan
    return AgeCheck(value=days, bound=0.0, passed=False, newest=ours, champions=theirs)


def _replaced(evaluated: Artifact, champion: Artifact) -> EarlierModelCheck | None:
    """Return a failed check if the champion was trained later on the same data.

    Without new data a run finds the model of an earlier run again. Otherwise that model, if worse only within the
    margin, would replace the better model that was promoted since.
    """
    ours, theirs = evaluated.input_ref("trained"), champion.input_ref("trained")
    if evaluated.input_ref("validated") != validation_of(champion).ref or not (ours and theirs):
        return None
    if attempt_of(ours) >= attempt_of(theirs):
        return None
    return EarlierModelCheck(value=0.0, bound=1.0, passed=False, trained=ours)


def _incomparable(recipe: Recipe, champion: Artifact) -> TaskCheck | None:
    """Return a failed check, which a person may waive, if the champion solves another task or knows other labels.

    All its answers would count as wrong, and any model would win. A damaged champion has no fields; loading it fails.
    """
    fields = champion.input("trained").manifest.fields
    if "kind" not in fields:
        return None
    theirs = _task(fields["kind"], pair=fields.get("objective") is not None)
    ours = _task(recipe.kind, pair=recipe.inputs == "pair")
    labels = {recipe.renamed_labels.get(name, name) for name in fields.get("labels", ())}
    if theirs != ours:
        known, wanted = theirs, ours
    elif labels != set(recipe.labels):
        known, wanted = (", ".join(sorted(names)) for names in (labels, set(recipe.labels)))
    else:
        return None
    return TaskCheck(value=0.0, bound=1.0, passed=False, task=wanted, champions=known)


def _task(kind: str, *, pair: bool) -> str:
    return f"{kind} of {'pairs' if pair else 'texts'}"
