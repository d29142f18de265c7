"""Promotion gate: decide by thresholds, behavioural tests and earlier models whether a model may be released."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.answer_cache import AnswerCache
from pipeline.evaluation.champions import other_task, predictions_of, readable, validation_of
from pipeline.evaluation.rivals import FEWEST, Rivals, fewest_rows, first_metric
from pipeline.job import Job
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
    ThresholdCheck,
)
from pipeline.store.decisions import Decision, Score
from pipeline.store.figures import Estimate, EvaluationFigures, ValidationFigures
from pipeline.store.manifest import attempt_of
from pipeline.store.seen_data import seen_by

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Compared:
    """The comparisons of a model with earlier ones, and the figures of all of them on the same rows."""

    checks: tuple[Check, ...] = ()
    scores: tuple[Score, ...] = ()


def make_decision(
    recipe: Recipe, figures: EvaluationFigures, compared: Compared, champion: Artifact | None, rivals: Rivals | None
) -> Decision:
    """Return the decision on an evaluation's `figures` and the comparisons; every check must pass.

    `rivals` are the earlier releases; None if the model is compared with none.
    """
    checks = (*_thresholds(recipe, figures), *_behaviour(recipe, figures), *compared.checks)
    return Decision(
        promote=all(check.passed for check in checks),
        champion=champion.ref if champion else None,
        best=rivals.best.ref if rivals and rivals.best else None,
        notes=rivals.notes if rivals else (),
        checks=checks,
        scores=compared.scores,
    )


def compare(
    recipe: Recipe, labels: Numbers, ours: Numbers, theirs: Numbers, rival: RivalName, gate_rows: int | None = None
) -> ComparisonCheck:
    """Return the non-inferiority check of `ours` against `theirs` on the first metric, with the recipe's margin.

    It passes if the lower end of the difference's interval is at least minus the margin. It fails on NaN and on fewer
    than `FEWEST` rows. `gate_rows` is the number of all gate rows, if the arrays are only a part of them.
    """
    difference = _difference(recipe, labels, ours, theirs)
    worst = difference.low
    return ComparisonCheck(
        value=worst,
        bound=-recipe.gate.margin,
        passed=worst >= -recipe.gate.margin and len(labels) >= FEWEST,
        estimate=difference,
        metric=recipe.metrics[0],
        rival=rival,
        rows=len(labels),
        fewest=fewest_rows(recipe),
        gate_rows=gate_rows,
    )


def _difference(recipe: Recipe, labels: Numbers, ours: Numbers, theirs: Numbers) -> Estimate:
    if not len(labels):
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    # Imported here: without a champion there is no comparison, and importing SciPy's statistics takes a second.
    from pipeline.tasks.registry import task_of

    return Estimate.model_validate(task_of(recipe).difference(labels, ours, theirs))


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


def compare_with_rivals(job: Job, evaluated: Artifact, champion: Artifact, rivals: Rivals) -> Compared:
    """Compare an evaluated model with the champion and the best release before it, on the rows of `rivals`.

    Raises ArtifactError if the champion cannot be read: a missing champion must not let a gate pass.
    """
    recipe = job.recipe
    with readable(champion):
        # All gate rows, so that the next run finds the answers in the cache.
        theirs = predictions_of(recipe, champion, rivals.gate, AnswerCache.of(job))[rivals.counted]
        seen = seen_by(champion.input("trained"))
    labels, ours = (rivals.rows[name].to_numpy() for name in ("label", "prediction"))
    against: dict[RivalName, Numbers | None] = {"champion": theirs, "best": rivals.answers}
    checks: list[Check] = [
        compare(recipe, labels, ours, answers, rival, len(rivals.counted))
        for rival, answers in against.items()
        if answers is not None
    ]
    trained = evaluated.input("trained")
    values = [first_metric(recipe, labels, answers) for answers in (ours, theirs)]
    scores = (
        Score(model="challenger", ref=trained.ref, value=values[0], held_out=seen_by(trained).held_out),
        Score(model="champion", ref=champion.ref, value=values[1], held_out=seen.held_out),
    )
    return Compared((*checks, *([rivals.bar] if rivals.bar else [])), (*scores, *rivals.scores))


def bar_challenger(recipe: Recipe, evaluated: Artifact, champion: Artifact) -> Check | None:
    """Return a failed check if the challenger may not replace the champion, whatever the two predict.

    It may not if it was trained on the sample and the champion on real data, if the champion has newer data, if the
    champion was trained later on the same data, or, unless a person approves it, if the two solve different tasks.
    """
    if recipe.sample and not ValidationFigures.read(validation_of(champion)).sample:
        # It would win on the sample's own rows and then serve real users.
        return SampleCheck(value=0.0, bound=1.0, passed=False)
    return _older(evaluated, champion) or other_task(recipe, champion, "champion") or _replaced(evaluated, champion)


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
    ours, theirs = evaluated.input_ref("trained"), champion.input("trained").ref
    if not ours or attempt_of(ours) >= attempt_of(theirs):
        return None
    if not _same_files(evaluated.input("validated"), validation_of(champion)):
        return None
    return EarlierModelCheck(value=0.0, bound=1.0, passed=False, trained=ours)


def _same_files(ours: Artifact, theirs: Artifact) -> bool:
    """Return whether two validations read the same published files and used the same arrivals.

    A change of the rules, which is taken back later, gives other validations of the same files.
    """
    if ours.ref == theirs.ref:
        return True
    files, arrivals = ours.manifest.fields.get("files"), ValidationFigures.read(ours).arrivals
    same = files == theirs.manifest.fields.get("files") and arrivals == ValidationFigures.read(theirs).arrivals
    return files is not None and same
