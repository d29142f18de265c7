"""The decide stage: check an evaluation against the gate, and write decision and report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evaluation.earlier_releases import find_rivals
from pipeline.evaluation.promotion_gate import (
    Compared,
    bar_challenger,
    compare_with_rivals,
    is_same_model,
    make_decision,
)
from pipeline.evaluation.report import render_report
from pipeline.evaluation.rivals import Rivals
from pipeline.job import Job
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import read_decision
from pipeline.store.figures import DecisionFigures, EvaluationFigures

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

log = logging.getLogger(__name__)

VERSION = 5


def decide(job: Job, evaluated: Artifact, champion: Artifact | None) -> Artifact:
    """Check an evaluation against the recipe's gate and return the decision: `decision.json` and `report.html`.

    Every metric on the test file must reach its threshold, and every capability its share of passed behavioural cases.
    If there is a champion, the first metric must not be worse than the champion's, or than that of the best release
    before it, by more than the margin: the 5% quantile of the paired bootstrap of the difference must be above minus
    the margin. All are compared on the gate rows that the training of each of them held out. If these are too few, a
    person must approve the model. Raises ArtifactError if the champion cannot be read or outputs NaN. An earlier
    release with such a problem is left out, and the decision names it.
    """
    recipe = job.recipe
    bar, rivals = None, None
    if champion is not None and not is_same_model(evaluated, champion):
        bar = bar_challenger(recipe, evaluated, champion)
        rivals = None if bar else _rivals(job, evaluated, champion)
    known = {"champion": champion} if champion else {}
    if rivals and rivals.best:
        known["best"] = rivals.best
    # All fields, because the report shows the whole recipe. The behavioural tests belong to the evaluation's key.
    fields = recipe.model_dump(mode="json", exclude={"behaviour"})

    inputs = {"evaluated": evaluated}

    def build(draft: Path, tracker: Tracker) -> DecisionFigures:
        compared = Compared((bar,) if bar else ())
        if champion and rivals:
            compared = compare_with_rivals(job, evaluated, champion, rivals)
        decision = make_decision(recipe, EvaluationFigures.read(evaluated), compared, champion, rivals)
        (draft / "decision.json").write_text(decision.model_dump_json(indent=1), encoding="utf-8")
        report = render_report(recipe, job.run, decision, evaluated, tracked=tracker.address)
        (draft / "report.html").write_text(report, encoding="utf-8")
        return DecisionFigures(promote=decision.promote, reason=decision.reason)

    decided = find_or_build(job, "decide", VERSION, fields=fields, inputs=inputs, compared_with=known, build=build)
    decision = read_decision(decided)
    level = logging.INFO if decision.promote else logging.ERROR
    log.log(level, "%s: %s Report: %s/report.html", recipe.name, decision.reason, decided.uri)
    return decided


def _rivals(job: Job, evaluated: Artifact, champion: Artifact) -> Rivals:
    rivals = find_rivals(job, evaluated, champion)
    for note in rivals.notes:
        log.warning("%s: %s", job.recipe.name, note)
    return rivals
