"""Decide: may the trained model be released? Floors on the test file, and the champion on the gate side."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.artifacts import Artifact
from pipeline.errors import ArtifactError, BaseModelError
from pipeline.job import Job
from pipeline.metrics import worst_difference
from pipeline.model import load_trained
from pipeline.produce import produce
from pipeline.recipe import Recipe
from pipeline.releases import Check, Decision
from pipeline.report import render_report
from pipeline.tracking import Tracker

log = logging.getLogger(__name__)

VERSION = 1
NAMES = {"accuracy": "accuracy", "f1": "F1", "pearson": "Pearson r"}


def decide(job: Job, evaluated: Artifact, champion: Artifact | None) -> Artifact:
    """Hold an evaluation against the recipe's gate: `decision.json` and `report.html`.

    Every metric on the test file must reach its floor. Where there is a champion, its first metric on the gate
    side must not be worse by more than the margin: the 5% quantile of the paired bootstrap of the difference
    lies above minus the margin. Raises ArtifactError where the champion cannot be read.
    """
    recipe = job.recipe
    inputs = {"evaluated": evaluated} | ({"champion": champion} if champion else {})
    # All of it: the report shows the whole recipe.
    fields = recipe.model_dump(mode="json")

    def build(draft: Path, _: Tracker) -> dict[str, Any]:
        checks = [*_floors(recipe, evaluated), *_against(recipe, evaluated, champion)]
        decision = Decision(
            promote=all(check.passed for check in checks),
            reason=_reason(recipe, checks, champion),
            champion=champion.ref if champion else None,
            checks=tuple(checks),
        )
        (draft / "decision.json").write_text(decision.model_dump_json(indent=1), encoding="utf-8")
        (draft / "report.html").write_text(_report(job, decision, evaluated), encoding="utf-8")
        return {"promote": decision.promote, "reason": decision.reason}

    decided = produce(job, "decide", VERSION, fields=fields, inputs=inputs, build=build)
    level = logging.INFO if decided.figures["promote"] else logging.ERROR
    log.log(level, "%s: %s Report: %s/report.html", recipe.name, decided.figures["reason"], decided.uri)
    return decided


def _report(job: Job, decision: Decision, evaluated: Artifact) -> str:
    validated, trained = _source(evaluated, "validated"), _source(evaluated, "trained")
    return render_report(job.recipe, job.run, decision, validated, trained, evaluated, evaluated.path / "plot.png")


def _source(artifact: Artifact, name: str) -> Artifact:
    return artifact.store.open(artifact.manifest.inputs[name].ref)


def _floors(recipe: Recipe, evaluated: Artifact) -> list[Check]:
    # The reason goes everywhere: log, alert, report, deployment log.
    file = "the sample's test file" if recipe.sample else "the test file"
    checks = []
    for metric in recipe.metrics:
        value, floor = float(evaluated.figures["test"][metric]["value"]), recipe.gate.floors[metric]
        # NaN is not above anything.
        name = f"{NAMES[metric]} on {file}"
        checks.append(Check(name=name, value=value, bound=floor, passed=value >= floor))
    return checks


def _against(recipe: Recipe, evaluated: Artifact, champion: Artifact | None) -> list[Check]:
    if champion is None:
        return []
    source = champion.manifest.inputs.get("trained")
    if source is not None and source.ref == evaluated.manifest.inputs["trained"].ref:
        return []
    if recipe.sample and not _knows_only_sample(champion):
        # On the sample's own rows it would win, and real users would be answered by it.
        name = "share of real data in training, where the champion has it,"
        return [Check(name=name, value=0.0, bound=1.0, passed=False)]
    if older := _older(evaluated, champion):
        return [older]
    gate = pd.read_parquet(evaluated.path / "gate.parquet")
    labels, ours = gate["label"].to_numpy(), gate["prediction"].to_numpy()
    theirs = _answers(recipe, champion, gate)
    value, worst = worst_difference(recipe, labels, ours, theirs)
    name = f"{NAMES[recipe.metrics[0]]} against the champion ({value:+.4f}), at worst"
    return [Check(name=name, value=worst, bound=-recipe.gate.margin, passed=worst >= -recipe.gate.margin)]


@contextmanager
def _readable(champion: Artifact) -> Iterator[None]:
    try:
        yield
    except (ArtifactError, BaseModelError, KeyError, OSError) as error:
        raise ArtifactError(
            f"the champion {champion.ref} cannot be read ({error}); roll back to a deployment that can "
            "(saebyeok rollback), or restore the store"
        ) from error


def _knows_only_sample(champion: Artifact) -> bool:
    with _readable(champion):
        validated = _source(_source(_source(champion, "trained"), "tokenized"), "validated")
        return bool(validated.figures["sample"])


def _older(evaluated: Artifact, champion: Artifact) -> Check | None:
    """A check that fails where the champion knows of later days: a night that is made up for never overtakes it."""
    with _readable(champion):
        theirs = _source(_source(_source(champion, "trained"), "tokenized"), "validated").figures.get("cutoff")
    ours = _source(evaluated, "validated").figures.get("cutoff")
    if theirs is None or (ours is not None and ours >= theirs):
        return None
    behind = (date.fromisoformat(theirs) - date.fromisoformat(ours)).days if ours else math.inf
    name = f"days from the champion's newest data ({theirs}) to this model's ({ours or 'none that arrived'})"
    return Check(name=name, value=-behind, bound=0.0, passed=False)


def _answers(recipe: Recipe, champion: Artifact, gate: pd.DataFrame) -> np.ndarray[Any, Any]:
    with _readable(champion):
        model = load_trained(recipe, _source(champion, "trained"))
    answers = model.answer(gate)
    if answers.ndim == 1:
        return answers
    # By name, since the recipe may have got other labels meanwhile; one that it lost is never right.
    numbers = {name: number for number, name in enumerate(recipe.labels)}
    by_name = np.array([numbers.get(name, -1) for name in model.recipe.labels])
    return np.asarray(by_name[answers.argmax(axis=1)])


def _reason(recipe: Recipe, checks: list[Check], champion: Artifact | None) -> str:
    failed = [check for check in checks if not check.passed]
    if failed:
        return f"Refused: {'; '.join(_miss(check) for check in failed)}."
    reached = checks[: len(recipe.metrics)]
    floors = ", ".join(f"{check.name} is {check.value:.4f} (floor {check.bound:g})" for check in reached)
    if champion is None:
        return f"Promoted: {floors}; there is no champion yet."
    if len(checks) == len(recipe.metrics):
        return f"Promoted: {floors}; it is the champion's own model."
    last = checks[-1]
    return f"Promoted: {floors}; {last.name}, {last.value:+.4f} (margin {-last.bound:g})."


def _miss(check: Check) -> str:
    if math.isnan(check.value):
        return f"{check.name} has no value, as where all answers are alike (at least {check.bound:g} is needed)"
    return f"{check.name} is {check.value:.4f}, below {check.bound:g}"
