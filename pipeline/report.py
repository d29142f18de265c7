"""The report of a decision: one HTML page that needs no other file, for people who did not watch the run."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.artifacts import Artifact
from pipeline.errors import SaebyeokError
from pipeline.recipe import Recipe
from pipeline.releases import Decision, read_card

log = logging.getLogger(__name__)

NAMES = {"accuracy": "Accuracy", "f1": "F1", "pearson": "Pearson r"}
#: Columns of the trainer's log that say how fast it was, which the page says once for the whole training.
SPEED = ("runtime", "per_second", "flos", "flops")


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval, all in the metric's own unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scale:
    """A stretch of the number line, wide enough for all that is drawn on it."""

    start: float
    end: float

    def place(self, value: float) -> float:
        """Where `value` stands, in percent of the width."""
        return round(100 * (value - self.start) / (self.end - self.start), 2)


@dataclass(frozen=True)
class MetricRow:
    """One metric: the test file, the same without the texts of train, its floor and the champion."""

    name: str
    test: Interval
    unseen: Interval | None
    floor: float
    champion: float | None
    scale: Scale


def render_report(
    recipe: Recipe,
    run: str,
    decision: Decision,
    validated: Artifact,
    trained: Artifact,
    evaluated: Artifact,
    plot: Path,
) -> str:
    """The page as HTML text, with the picture at `plot` (a PNG) inside it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "count": _count, "duration": _duration, "cell": _cell}
    return environment.get_template("report.html").render(
        recipe=recipe,
        run=run,
        decision=decision,
        metrics=metric_rows(recipe, decision, evaluated),
        validated=validated.figures,
        trained=trained.figures,
        evaluated=evaluated.figures,
        epochs=epoch_table(trained.figures.get("history", [])),
        settings=list(_flat(recipe.model_dump(mode="json", exclude={"name", "title", "sample"}))),
        artifacts=[("validated", validated), ("trained", trained), ("evaluated", evaluated)],
        created=evaluated.manifest.created,
        code=evaluated.manifest.code,
        plot=base64.b64encode(plot.read_bytes()).decode("ascii"),
    )


def metric_rows(recipe: Recipe, decision: Decision, evaluated: Artifact) -> list[MetricRow]:
    """The recipe's metrics in its own order, each with all that it is held against."""
    champion = _champion_figures(decision, evaluated)
    test = evaluated.figures["test"]
    unseen = evaluated.figures.get("test_without_train_texts", {})
    rows = []
    for metric in recipe.metrics:
        whole, part = _interval(test[metric]), _interval(unseen[metric]) if metric in unseen else None
        floor, best = recipe.gate.floors[metric], champion.get(metric)
        drawn = [floor, *([] if best is None else [best]), *_ends(whole), *(_ends(part) if part else [])]
        rows.append(MetricRow(NAMES.get(metric, metric), whole, part, floor, best, _scale(drawn)))
    return rows


def epoch_table(history: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the training history; a value that an epoch lacks is None."""
    epochs = list(history)
    columns: dict[str, None] = {"epoch": None} if any("epoch" in row for row in epochs) else {}
    for row in epochs:
        columns |= {name: None for name in row if not name.endswith(SPEED)}
    return list(columns), [[row.get(name) for name in columns] for row in epochs]


def _champion_figures(decision: Decision, evaluated: Artifact) -> dict[str, float]:
    if decision.champion is None:
        return {}
    try:
        return read_card(evaluated.store.open(decision.champion)).figures
    except SaebyeokError as error:
        # The decision was made without this; the page then shows one column less.
        log.warning("the report lacks the champion's figures: %s", error)
        return {}


def _interval(figure: Mapping[str, float]) -> Interval:
    return Interval(figure["value"], figure["low"], figure["high"])


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _scale(values: list[float]) -> Scale:
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), 0.005)
    return Scale(low - room, high + room)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _figure(value: float) -> str:
    return f"{value:.4f}"


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
