"""The report of a run: one self-contained HTML page."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.errors import SaebyeokError
from pipeline.evaluation.changes import Change, changes_since
from pipeline.evaluation.report_formats import report_template
from pipeline.job import is_by_hand
from pipeline.nested import flatten
from pipeline.recipes.schema import Recipe
from pipeline.store.acceptances import Acceptance, find_acceptances
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import ComparisonCheck
from pipeline.store.decisions import Decision
from pipeline.store.figures import (
    BehaviourTestFigures,
    Estimate,
    EvaluationFigures,
    ReleaseFigures,
    SliceFigures,
    TrainingFigures,
    ValidationFigures,
)
from pipeline.store.releases import release_id
from pipeline.store.verdicts import find_verdict

log = logging.getLogger(__name__)

#: DAG of the runs, for links to its pages in Airflow.
NIGHTLY_DAG = "nightly_retrain"
#: Compared models, as the page names them.
MODELS = {"challenger": "this model", "champion": "the champion", "earlier": "an earlier release"}
#: Similarity measures of two vectors, as the page names them.
WAYS = {"cosine": "by cosine (as served)", "euclidean": "by Euclidean distance"}
#: Speed columns of the trainer's log; the page shows speed once, for the whole training.
SPEED = ("runtime", "per_second", "flos", "flops")
#: Failed behavioural cases to show per test: enough to see a pattern.
SHOWN_FAILURES = 5
#: Mistakes shown at first; the others are in a collapsed section.
SHOWN_MISTAKES = 6
#: Kinds of overlap (`pipeline.data.data_gate`), as the page names them. Rows are compared by normalised text.
OVERLAPS = {
    "test_in_train": "Test rows that match a train row",
    "train_two_labels": "Train rows with conflicting labels",
    "train_duplicates": "Duplicate train rows",
    "test_two_labels": "Test rows with conflicting labels",
    "test_duplicates": "Duplicate test rows",
}


@dataclass(frozen=True)
class Scale:
    """A range of the number line that contains everything drawn on it."""

    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the position of `value` in percent of the width."""
        return round(100 * (value - self.start) / (self.end - self.start), 2)


@dataclass(frozen=True)
class Line:
    """A figure with its interval on a scale, and the bound or the reference mark that it is compared with."""

    label: str
    figure: Estimate
    scale: Scale
    bound: float | None = None
    mark: float | None = None
    note: str = ""


@dataclass(frozen=True)
class MetricRow:
    """One metric on the test file, its threshold, and one line each for new texts, whole file and champion.

    `judged` is the figure on new texts, to which the threshold applies.
    """

    name: str
    judged: Estimate
    floor: float
    champion: Estimate | None
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class SettingRow:
    """One field of the recipe: whether this run overrides it, and the champion's value if that is another one."""

    key: str
    value: Any
    overridden: bool
    champion: str | None


@dataclass(frozen=True)
class ShownTest:
    """One behavioural test, and some of the cases that it failed."""

    figures: BehaviourTestFigures
    failures: Sequence[Mapping[str, Any]]


def render_report(
    recipe: Recipe,
    run: str,
    decision: Decision,
    evaluated: Artifact,
    exported: ReleaseFigures | None = None,
    *,
    tracked: str | None = None,
) -> str:
    """Return the report as an HTML page with embedded pictures.

    `exported` are the figures of the release, and `tracked` is the address of the stage's W&B run, if they exist.
    Raises ArtifactError if the evaluation cannot be read.
    """
    validated, trained = (evaluated.input(name) for name in ("validated", "trained"))
    champion, changes = _champion_figures(decision, evaluated.store), _changes(recipe, decision, evaluated)
    figures, training = EvaluationFigures.read(evaluated), TrainingFigures.read(trained)
    return report_template().render(
        shown_mistakes=SHOWN_MISTAKES,
        recipe=recipe,
        run=run,
        tracked=tracked,
        by_hand=is_by_hand(run),
        dag=NIGHTLY_DAG,
        decision=decision,
        names=_release_names(decision, evaluated.store),
        first=_metric_name(recipe, recipe.metrics[0]),
        metrics=metric_rows(recipe, figures, champion.test_without_train_texts if champion else {}),
        comparisons=comparison_lines(decision),
        counted=_counted_rows(decision, figures),
        models=MODELS,
        fallen=_fallen(recipe, decision, champion),
        changes=changes,
        verdict=find_verdict(trained),
        accepted=accepted_days(recipe, validated),
        behaviour=behaviour_rows(recipe, figures, evaluated.read_json("behaviour.json")),
        similarity=similarity_lines(recipe, figures),
        slices=slice_lines(recipe, figures),
        mistakes=evaluated.read_json("mistakes.json"),
        exported=exported,
        validated=ValidationFigures.read(validated),
        files=validated.manifest.fields.get("files", {}),
        overlaps=OVERLAPS,
        trained=training,
        evaluated=figures,
        evaluation=evaluated.ref,
        epochs=epoch_table(training.history),
        settings=setting_rows(recipe, changes or ()),
        artifacts=[("validated", validated), ("trained", trained), ("evaluated", evaluated)],
        created=evaluated.manifest.created,
        code=evaluated.manifest.code,
        pictures={Path(name).stem: _picture(evaluated, name) for name in ("plot.png", "reliability.png")},
    )


def metric_rows(recipe: Recipe, figures: EvaluationFigures, champion: Mapping[str, Estimate]) -> list[MetricRow]:
    """Return the recipe's metrics in recipe order, each with the threshold and the figures to compare it with.

    `champion` are the champion's metrics on the new texts of its own run; empty if they are unknown.
    """
    rows = []
    for metric in recipe.metrics:
        floor = recipe.gate.floor_of(metric)
        shown = {
            "texts not in train": figures.test_without_train_texts[metric],
            "whole test file": figures.test[metric],
            "the champion in its own run, texts not in train": champion.get(metric),
        }
        estimates = {label: item for label, item in shown.items() if item is not None}
        scale = _scale(floor, *estimates.values())
        lines = tuple(Line(label, estimate, scale, bound=floor) for label, estimate in estimates.items())
        judged = figures.test_without_train_texts[metric]
        rows.append(MetricRow(_metric_name(recipe, metric), judged, floor, champion.get(metric), lines))
    return rows


def setting_rows(recipe: Recipe, changes: Iterable[Change]) -> list[SettingRow]:
    """Return the fields of the recipe that have a value; `changes` are those since the champion."""
    fields = flatten(recipe.model_dump(mode="json", exclude={"name", "title", "sample", "behaviour"}))
    before = {change.name: change.before for change in changes if change.part == "recipe"}
    return [
        SettingRow(key, value, key in recipe.overridden, before.get(key))
        for key, value in fields.items()
        if value is not None
    ]


def accepted_days(recipe: Recipe, validated: Artifact) -> list[tuple[date, Acceptance]]:
    """Return the days in the training data that are unusual and that a person accepted, with who and why."""
    digests = validated.manifest.fields.get("accepted", ())
    used = [item for item in ValidationFigures.read(validated).arrivals if item.sha256 in digests]
    accepted = find_acceptances(validated.store, recipe.name, {str(item.date): item.sha256 for item in used})
    return [(item.date, accepted[str(item.date)]) for item in used if str(item.date) in accepted]


def comparison_lines(decision: Decision) -> list[Line]:
    """Return the comparisons with the champion and the best earlier release, on one scale with zero marked."""
    drawn = [(check, check.estimate) for check in decision.checks if check.kind == "comparison" and check.estimate]
    scale = _scale(0.0, *(check.bound for check, _ in drawn), *(estimate for _, estimate in drawn))
    names = ("the champion", "the best earlier release")
    return [
        Line(name, estimate, scale, check.bound, 0.0) for name, (check, estimate) in zip(names, drawn, strict=False)
    ]


def behaviour_rows(
    recipe: Recipe, figures: EvaluationFigures, failures: Sequence[Mapping[str, Any]]
) -> list[tuple[Line, list[ShownTest]]]:
    """Return for each capability its line on a scale from 0 to 1, and its tests with some of the failed cases."""
    rows = []
    for capability, figure in figures.behaviour.items():
        tests = [
            ShownTest(test, _spread([item for item in failures if item["test"] == test.name], SHOWN_FAILURES))
            for test in figure.tests
        ]
        note = f"{figure.passed} of {figure.cases} cases"
        rows.append((Line(capability, figure.rate, Scale(0, 1), recipe.gate.behaviour[capability], note=note), tests))
    return rows


def similarity_lines(recipe: Recipe, figures: EvaluationFigures) -> list[Line]:
    """Return the first metric for each similarity measure; empty for models that are not bi-encoders."""
    found = {way: metrics[recipe.metrics[0]] for way, metrics in figures.similarity.items()}
    scale = _scale(*found.values())
    return [Line(WAYS[way], estimate, scale) for way, estimate in found.items()]


def slice_lines(recipe: Recipe, figures: EvaluationFigures) -> dict[str, list[Line | SliceFigures]]:
    """Return the parts of each slice: a line with the whole file marked, or the bare part if it has too few rows."""
    whole = figures.test[recipe.metrics[0]]
    scale = _scale(whole, *(part.figure for part in figures.slices if part.figure))
    slices: dict[str, list[Line | SliceFigures]] = {}
    for part in figures.slices:
        rows = slices.setdefault(part.slice, [])
        if part.figure is None:
            rows.append(part)
        else:
            rows.append(Line(part.part, part.figure, scale, mark=whole.value, note=f"{part.rows:,} rows"))
    return slices


def epoch_table(history: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of the training history; a missing value is None."""
    epochs = list(history)
    columns: dict[str, None] = {"epoch": None} if any("epoch" in row for row in epochs) else {}
    for row in epochs:
        columns |= {name: None for name in row if not name.endswith(SPEED)}
    return list(columns), [[row.get(name) for name in columns] for row in epochs]


def _metric_name(recipe: Recipe, metric: str) -> str:
    """Return the name of a metric at the start of a line."""
    name = recipe.task.metric_names[metric]
    return name[:1].upper() + name[1:]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    # Spread over all failures: neighbours come from one template and differ by a word.
    return list(items) if len(items) <= count else [items[len(items) * place // count] for place in range(count)]


def _champion_figures(decision: Decision, store: Store) -> EvaluationFigures | None:
    """Return the champion's figures in its own run, or None if there is no champion or it cannot be read."""
    if decision.champion is None:
        return None
    try:
        return EvaluationFigures.read(store.open(decision.champion).input("evaluated"))
    except SaebyeokError as error:
        # The decision does not depend on these figures, so the page omits the line.
        log.warning("report: the champion's figures cannot be read and are left out: %s", error)
        return None


def _fallen(recipe: Recipe, decision: Decision, champion: EvaluationFigures | None) -> tuple[float, Estimate] | None:
    """Return the champion's first metric on today's rows and on its own gate rows, if today's is below the interval."""
    today = next((score.value for score in decision.scores if score.model == "champion"), None)
    own = champion.gate.get(recipe.metrics[0]) if champion else None
    return (today, own) if today is not None and own is not None and today < own.low else None


def _release_names(decision: Decision, store: Store) -> dict[str, str]:
    """Return the ids of the compared releases by ref."""
    refs = [decision.champion, decision.best, *(item.ref for item in decision.scores if item.model != "challenger")]
    return {ref: release_id(store, ref) for ref in refs if ref is not None}


def _counted_rows(decision: Decision, figures: EvaluationFigures) -> tuple[int, int]:
    """Return the number of gate rows on which the models were compared, and of all gate rows."""
    rows = [check.rows for check in decision.checks if isinstance(check, ComparisonCheck)]
    return min(rows, default=figures.gate_rows), figures.gate_rows


def _changes(recipe: Recipe, decision: Decision, evaluated: Artifact) -> list[Change] | None:
    """Return the changes since the champion, or None if there is no champion or it cannot be read."""
    if decision.champion is None:
        return None
    try:
        return changes_since(evaluated.store.open(decision.champion), evaluated, recipe.model_dump(mode="json"))
    except SaebyeokError as error:
        log.warning("report: the changes since the champion are unknown and are left out: %s", error)
        return None


def _picture(evaluated: Artifact, name: str) -> str | None:
    if name not in evaluated.manifest.files:
        return None
    return base64.b64encode((evaluated.path / name).read_bytes()).decode("ascii")


def _scale(*drawn: float | Estimate) -> Scale:
    ends = [(item.low, item.high) if isinstance(item, Estimate) else (item, item) for item in drawn]
    # NaN is not drawn.
    values = [value for pair in ends for value in pair if value == value]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max(0.15 * (high - low), 0.005)
    return Scale(low - room, high + room)
