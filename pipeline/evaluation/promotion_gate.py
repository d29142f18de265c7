"""Promotion gate: decide by thresholds, behavioural tests and earlier models whether a model may be released."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.champions import Best, load_rival, validation_of
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Check, Decision, Estimate
from pipeline.store.manifest import attempt_of

#: Fewest gate rows for a comparison of two models: agreement on a handful of rows proves nothing.
FEWEST = 30
Numbers = np.ndarray[Any, Any]


def make_decision(
    recipe: Recipe, figures: Mapping[str, Any], compared: Sequence[Check], champion: Artifact | None, best: Best
) -> Decision:
    """Return the decision on an evaluation's `figures` and the comparisons; every check must pass."""
    checks = (*_floors(recipe, figures), *_behaviour(recipe, figures), *compared)
    return Decision(
        promote=all(check.passed for check in checks),
        reason=_reason(recipe, checks, champion),
        champion=champion.ref if champion else None,
        best=best.release.ref if best.release else None,
        notes=best.notes,
        checks=checks,
    )


def compare(recipe: Recipe, labels: Numbers, ours: Numbers, theirs: Numbers, whom: str) -> Check:
    """Return the non-inferiority check of `ours` against `theirs` on the first metric, with the recipe's margin.

    It passes if the lower end of the difference's interval is at least minus the margin. It fails on NaN and on fewer
    than `FEWEST` rows.
    """
    # Imported here: without a champion there is no comparison, and importing SciPy's statistics takes a second.
    from pipeline.tasks.registry import task_of

    difference = task_of(recipe).difference(labels, ours, theirs)
    worst = difference["low"]
    told = "" if math.isnan(worst) else f" ({difference['value']:+.4f}), at worst"
    name = f"{recipe.task.metric_names[recipe.metrics[0]]} against {whom}{told}"
    few = f"{len(labels)} gate rows say too little of {whom}: at least {FEWEST} are needed (data.gate_share)"
    passed = worst >= -recipe.gate.margin and len(labels) >= FEWEST
    miss = few if len(labels) < FEWEST else None
    return _check("comparison", name, worst, -recipe.gate.margin, passed=passed, figure=difference, miss=miss)


def gate_rows(evaluated: Artifact) -> pd.DataFrame:
    """Return the gate rows of an evaluation, with its predictions."""
    return pd.read_parquet(evaluated.path / "gate.parquet")


def is_same_model(evaluated: Artifact, champion: Artifact) -> bool:
    """Return whether both come from the same train artifact."""
    return champion.input_ref("trained") == evaluated.input_ref("trained")


def _floors(recipe: Recipe, figures: Mapping[str, Any]) -> list[Check]:
    # Name the sample: the reason appears in log, alert, report and deployment log.
    file = "the sample's test file" if recipe.sample else "the test file"
    checks = []
    for metric, name in recipe.task.metric_names.items():
        figure, floor = figures["test"][metric], recipe.gate.floors[metric]
        value = float(figure["value"])
        # NaN fails the comparison.
        checks.append(_check("floor", f"{name} on {file}", value, floor, passed=value >= floor, figure=figure))
    return checks


def _behaviour(recipe: Recipe, figures: Mapping[str, Any]) -> list[Check]:
    checks = []
    for capability, bound in recipe.gate.behaviour.items():
        figure = figures["behaviour"][capability]["rate"]
        name, value = f"share of {capability} cases passed", float(figure["value"])
        checks.append(_check("behaviour", name, value, bound, passed=value >= bound, figure=figure))
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
    rivals = {"the champion": load_rival(recipe, champion).answers(recipe, rows), "the best before it": best.answers}
    labels, ours = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    return [compare(recipe, labels, ours, theirs, whom) for whom, theirs in rivals.items() if theirs is not None]


def bar_challenger(recipe: Recipe, evaluated: Artifact, champion: Artifact) -> Check | None:
    """Return a failed check if the challenger may not replace the champion, whatever the two predict.

    It may not if it was trained on the sample and the champion on real data, if the champion has newer data, if the
    champion was trained later on the same data, or, unless a person approves it, if the two solve different tasks.
    """
    if recipe.sample and not validation_of(champion).figures["sample"]:
        # It would win on the sample's own rows and then serve real users.
        miss = "it was trained on the shipped sample, and the champion on real data"
        return _check("comparison", "share of real data in training", 0.0, 1.0, passed=False, miss=miss)
    return _older(evaluated, champion) or _replaced(evaluated, champion) or _incomparable(recipe, champion)


def _check(
    kind: Any,
    name: str,
    value: float,
    bound: float,
    *,
    passed: bool,
    figure: Mapping[str, float] | None = None,
    miss: str | None = None,
    waivable: bool = False,
) -> Check:
    estimate = Estimate.model_validate(figure) if figure else None
    return Check(
        kind=kind,
        name=name,
        value=value,
        bound=bound,
        passed=passed,
        estimate=estimate,
        miss=miss,
        waivable=waivable,
    )


def _older(evaluated: Artifact, champion: Artifact) -> Check | None:
    """Return a failed check if the champion has newer data, so that a backfilled run never replaces it."""
    theirs = validation_of(champion).figures.get("cutoff")
    ours = evaluated.input("validated").figures.get("cutoff")
    if theirs is None or (ours is not None and ours >= theirs):
        return None
    days = (date.fromisoformat(ours) - date.fromisoformat(theirs)).days if ours else math.nan
    known = f"its newest data are of {ours}" if ours else "no data that arrived is in it"
    miss = f"{known}, and the champion knows those of {theirs}"
    return _check("comparison", "days of data ahead of the champion's", days, 0.0, passed=False, miss=miss)


def _replaced(evaluated: Artifact, champion: Artifact) -> Check | None:
    """Return a failed check if the champion was trained later on the same data.

    Without new data a run finds the model of an earlier run again. Within the margin it would otherwise replace the
    better model that was promoted since.
    """
    ours, theirs = evaluated.input_ref("trained"), champion.input_ref("trained")
    if evaluated.input_ref("validated") != validation_of(champion).ref or not (ours and theirs):
        return None
    if attempt_of(ours) >= attempt_of(theirs):
        return None
    miss = (
        f"it was trained before the champion on the same data ({ours}); to serve it again, roll back to its deployment "
        "(saebyeok rollback)"
    )
    return _check("comparison", "trained after the champion", 0.0, 1.0, passed=False, miss=miss)


def _incomparable(recipe: Recipe, champion: Artifact) -> Check | None:
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
    miss = (
        f"the champion knows another task ({known}) than this model ({wanted}), so they cannot be compared; set "
        "`renamed_labels` in the recipe if labels were only renamed, otherwise a person must approve the model"
    )
    return _check("comparison", "same task as the champion", 0.0, 1.0, passed=False, miss=miss, waivable=True)


def _task(kind: str, *, pair: bool) -> str:
    return f"{kind} of {'pairs' if pair else 'texts'}"


def _reason(recipe: Recipe, checks: Sequence[Check], champion: Artifact | None) -> str:
    failed = [check for check in checks if not check.passed]
    if failed:
        return f"Refused: {'; '.join(_miss(check) for check in failed)}."
    parts = [
        ", ".join(f"{check.name} is {check.value:.4f} (floor {check.bound:g})" for check in _of(checks, "floor")),
    ]
    if behaviour := _of(checks, "behaviour"):
        parts.append(f"all {len(behaviour)} behavioural bounds are met")
    compared = _of(checks, "comparison")
    parts += [f"{check.name} {check.value:+.4f} (margin {-check.bound:g})" for check in compared]
    if champion is None:
        parts.append("there is no champion yet")
    elif not compared:
        parts.append("it is the champion's own model")
    return f"Promoted: {'; '.join(parts)}."


def _of(checks: Sequence[Check], kind: str) -> list[Check]:
    return [check for check in checks if check.kind == kind]


def _miss(check: Check) -> str:
    if check.miss:
        return check.miss
    if math.isnan(check.value):
        return f"{check.name} has no value, as where all answers are alike (at least {check.bound:g} is needed)"
    if check.kind == "comparison":
        return f"{check.name} {check.value:+.4f} (margin {-check.bound:g})"
    return f"{check.name} is {check.value:.4f}, below {check.bound:g}"
