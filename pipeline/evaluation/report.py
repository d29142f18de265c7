"""The report of a run: one HTML page that needs no other file, for people who did not watch it."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.bounds import ERRORS, most_of
from pipeline.errors import SaebyeokError
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Decision, Estimate

log = logging.getLogger(__name__)

NAMES = {"accuracy": "Accuracy", "f1": "F1", "pearson": "Pearson r"}
#: Ways to compare two vectors, as the page says them.
WAYS = {"cosine": "by cosine, as it answers", "euclidean": "by Euclidean distance"}
#: Columns of the trainer's log that say how fast it was, which the page says once for the whole training.
SPEED = ("runtime", "per_second", "flos", "flops")
#: Failed behavioural cases that are shown of one test: enough to see what goes wrong.
SHOWN_FAILURES = 5
#: Mistakes that are shown at once; the others unfold.
SHOWN_MISTAKES = 6
#: Kinds of overlap (`pipeline.data.data_gate`), as the page says them: rows by their normalised text.
OVERLAPS = {
    "test_in_train": "Test rows as good as one of train",
    "train_two_labels": "Train rows under two labels",
    "train_duplicates": "Train rows that repeat one",
    "test_two_labels": "Test rows under two labels",
    "test_duplicates": "Test rows that repeat one",
}


@dataclass(frozen=True)
class Scale:
    """A stretch of the number line, wide enough for all that is drawn on it."""

    start: float
    end: float

    def place(self, value: float) -> float:
        """Where `value` stands, in percent of the width."""
        return round(100 * (value - self.start) / (self.end - self.start), 2)


@dataclass(frozen=True)
class Line:
    """A figure with its interval on a scale, and what it is held against: a bound, or a mark to compare with."""

    label: str
    figure: Estimate
    scale: Scale
    bound: float | None = None
    mark: float | None = None
    note: str = ""


@dataclass(frozen=True)
class MetricRow:
    """One metric on the test file, its floor and its lines: whole file, new texts, champion."""

    name: str
    test: Estimate
    floor: float
    champion: Estimate | None
    lines: tuple[Line, ...]


def render_report(
    recipe: Recipe, run: str, decision: Decision, evaluated: Artifact, exported: Mapping[str, Any] | None = None
) -> str:
    """The page as HTML text, with its pictures inside it.

    `exported` are the figures of the release (`parity`, `latency_ms`), where there is one already.
    Raises ArtifactError where what was evaluated cannot be read.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"shown_mistakes": SHOWN_MISTAKES, "most_of": most_of, "errors": ERRORS}
    environment.filters |= {"figure": _figure, "count": _count, "duration": _duration, "cell": _cell, "share": _share}
    validated, trained = (evaluated.input(name) for name in ("validated", "trained"))
    return environment.get_template("report.html").render(
        recipe=recipe,
        run=run,
        decision=decision,
        first=NAMES[recipe.metrics[0]],
        metrics=metric_rows(recipe, decision, evaluated),
        comparisons=comparison_lines(decision),
        behaviour=behaviour_rows(recipe, evaluated),
        similarity=similarity_lines(recipe, evaluated),
        slices=slice_lines(recipe, evaluated),
        mistakes=evaluated.read_json("mistakes.json"),
        exported=exported,
        validated=validated.figures,
        files=validated.manifest.fields.get("files", {}),
        overlaps=OVERLAPS,
        trained=trained.figures,
        evaluated=evaluated.figures,
        epochs=epoch_table(trained.figures.get("history", [])),
        settings=list(_flat(recipe.model_dump(mode="json", exclude={"name", "title", "sample", "behaviour"}))),
        artifacts=[("validated", validated), ("trained", trained), ("evaluated", evaluated)],
        created=evaluated.manifest.created,
        code=evaluated.manifest.code,
        pictures={Path(name).stem: _picture(evaluated, name) for name in ("plot.png", "reliability.png")},
    )


def metric_rows(recipe: Recipe, decision: Decision, evaluated: Artifact) -> list[MetricRow]:
    """The recipe's metrics in its own order, each with all that it is held against."""
    champion = _champion_figures(decision, evaluated)
    figures = evaluated.figures
    rows = []
    for metric in recipe.metrics:
        floor = recipe.gate.floors[metric]
        shown = {
            "whole test file": figures["test"][metric],
            "texts not in train": figures["test_without_train_texts"][metric],
            "the champion on its night": champion.get(metric),
        }
        estimates = {label: Estimate.model_validate(item) for label, item in shown.items() if item}
        scale = _scale(floor, *estimates.values())
        lines = tuple(Line(label, estimate, scale, bound=floor) for label, estimate in estimates.items())
        test, best = estimates["whole test file"], estimates.get("the champion on its night")
        rows.append(MetricRow(NAMES[metric], test, floor, best, lines))
    return rows


def comparison_lines(decision: Decision) -> list[Line]:
    """The comparisons with the champion and the best before it, on one scale with no difference marked."""
    drawn = [(check, check.estimate) for check in decision.checks if check.kind == "comparison" and check.estimate]
    scale = _scale(0.0, *(check.bound for check, _ in drawn), *(estimate for _, estimate in drawn))
    names = ("the champion", "the best before it")
    return [
        Line(name, estimate, scale, check.bound, 0.0) for name, (check, estimate) in zip(names, drawn, strict=False)
    ]


def behaviour_rows(recipe: Recipe, evaluated: Artifact) -> list[tuple[Line, list[dict[str, Any]]]]:
    """A capability each: its line from 0 to 1, and its tests with some of the cases that failed."""
    failures = evaluated.read_json("behaviour.json")
    rows = []
    for capability, figure in evaluated.figures["behaviour"].items():
        tests = [
            test | {"failures": _spread([item for item in failures if item["test"] == test["name"]], SHOWN_FAILURES)}
            for test in figure["tests"]
        ]
        note = f"{figure['passed']} of {figure['cases']} cases"
        rate, bound = Estimate.model_validate(figure["rate"]), recipe.gate.behaviour[capability]
        rows.append((Line(capability, rate, Scale(0, 1), bound, note=note), tests))
    return rows


def similarity_lines(recipe: Recipe, evaluated: Artifact) -> list[Line]:
    """The first metric by each way to compare two vectors; none where nothing is compared so."""
    metric = recipe.metrics[0]
    found = {
        way: Estimate.model_validate(figures[metric])
        for way, figures in evaluated.figures.get("similarity", {}).items()
    }
    scale = _scale(*found.values())
    return [Line(WAYS[way], estimate, scale) for way, estimate in found.items()]


def slice_lines(recipe: Recipe, evaluated: Artifact) -> dict[str, list[Line | dict[str, Any]]]:
    """Slice to its parts: a line on one scale with the whole file marked, or the bare part where rows are few."""
    whole = Estimate.model_validate(evaluated.figures["test"][recipe.metrics[0]])
    parts = evaluated.figures["slices"]
    found = [Estimate.model_validate(part["figure"]) for part in parts if part["figure"]]
    scale = _scale(whole, *found)
    slices: dict[str, list[Line | dict[str, Any]]] = {}
    for part in parts:
        rows = slices.setdefault(part["slice"], [])
        if part["figure"] is None:
            rows.append(part)
            continue
        figure = Estimate.model_validate(part["figure"])
        rows.append(Line(part["part"], figure, scale, mark=whole.value, note=f"{part['rows']:,} rows"))
    return slices


def epoch_table(history: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the training history; a value that an epoch lacks is None."""
    epochs = list(history)
    columns: dict[str, None] = {"epoch": None} if any("epoch" in row for row in epochs) else {}
    for row in epochs:
        columns |= {name: None for name in row if not name.endswith(SPEED)}
    return list(columns), [[row.get(name) for name in columns] for row in epochs]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    # Not the first: neighbours are of one template, and differ by a word.
    return list(items) if len(items) <= count else [items[len(items) * place // count] for place in range(count)]


def _champion_figures(decision: Decision, evaluated: Artifact) -> Mapping[str, Any]:
    if decision.champion is None:
        return {}
    try:
        figures: Mapping[str, Any] = evaluated.store.open(decision.champion).input("evaluated").figures["test"]
    except (SaebyeokError, KeyError) as error:
        # The decision was made without this; the page then shows one line less.
        log.warning("the report lacks the champion's figures: %s", error)
        return {}
    return figures


def _picture(evaluated: Artifact, name: str) -> str | None:
    if name not in evaluated.manifest.files:
        return None
    return base64.b64encode((evaluated.path / name).read_bytes()).decode("ascii")


def _scale(*drawn: float | Estimate) -> Scale:
    ends = [(item.low, item.high) if isinstance(item, Estimate) else (item, item) for item in drawn]
    # What has no value is not drawn.
    values = [value for pair in ends for value in pair if value == value]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max(0.15 * (high - low), 0.005)
    return Scale(low - room, high + room)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    # A minus sign and not a hyphen: differences are often negative.
    return f"{value:.4f}".replace("-", "\N{MINUS SIGN}")


def _share(value: float) -> str:
    return f"{value:.0%}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)
