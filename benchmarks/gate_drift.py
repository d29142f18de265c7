"""Simulate 1,000 nights in a row, and how far the live model falls behind the best one that was ever live.

python -m benchmarks.gate_drift [--nights 1000] [--series 20] [--json]
Every night a new model answers the gate rows, and the gate's own decision promotes or refuses it. Gate rows stay gate
rows, because the split follows the text, and the arrivals of each day add some. A model has a true accuracy; on some of
the rows, chance decides whether it is right. `behind` is the true accuracy of the best model that was ever live minus
that of the live one, on the rows of that night, in the worst night of a series.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pipeline.evaluation.promotion_gate import Compared, compare, make_decision
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.checks import RivalName
from pipeline.store.figures import CapabilityFigures, Estimate, EvaluationFigures

Bools = np.ndarray[Any, np.dtype[np.bool_]]
#: Earlier models that a new one is compared with.
Rule = Literal["champion", "champion and best"]
RULES: tuple[Rule, ...] = ("champion", "champion and best")

SEED = 20_261_129
#: Gate rows of the published reviews, and of the arrivals of a day.
ROWS, DAILY = 8_685, 36
#: Share of the rows on which chance decides whether a model is right; two equal models then differ on 8% of all rows.
OPEN = 0.16
#: Spread of the true accuracies of trainings with different seeds: that of `mini` (0.0002 on 50,000 reviews in
#: docs/results/models.md), and that of the small model from scratch (0.004 on 10,000 in docs/results/nights.md).
SPREAD, WIDE = 0.0005, 0.003
#: Share of the arrivals on which every model is right by chance only, in the course with harder arrivals.
HARDER = 0.3
#: Releases that retention keeps besides the best (`SAEBYEOK_KEEP_DEPLOYMENTS`).
KEPT = 7


@dataclass(frozen=True)
class Course:
    """The course of a series: `loss` of accuracy of the model of night n, its `spread`, share of harder arrivals."""

    name: str
    loss: Callable[[int], float]
    spread: float = 0.0
    harder: float = 0.0


COURSES = (
    Course("equal models", lambda night: 0.0),
    Course("seeds of mini", lambda night: 0.0, SPREAD),
    Course("seeds from scratch", lambda night: 0.0, WIDE),
    Course("slow loss, 0.0001 per night", lambda night: min(0.0001 * night, 0.05), SPREAD),
    Course("loss of 0.01 from night 100 on", lambda night: 0.01 * (night >= 100), SPREAD),
    Course("loss of 0.02 from night 100 on", lambda night: 0.02 * (night >= 100), SPREAD),
    Course("harder arrivals", lambda night: 0.0, SPREAD, HARDER),
)


@dataclass(eq=False)
class Contender:
    """A model: its true accuracy relative to that of the first one, and its answers to the gate rows so far."""

    quality: float
    right: Bools

    def see(self, rows: GrowingRows, draw: np.random.Generator) -> None:
        """Answer the rows that it has not answered yet."""
        new = rows.open[len(self.right) :]
        chance = np.where(rows.hard[len(self.right) :], 0.5, 0.5 + self.quality / OPEN)
        self.right = np.concatenate([self.right, ~new | (draw.random(len(new)) < chance)])


@dataclass(eq=False)
class GrowingRows:
    """The gate rows: chance decides about `open` ones, and about `hard` ones (a part of them) for all models alike."""

    open: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))
    hard: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def grow(self, count: int, harder: float, draw: np.random.Generator) -> None:
        """Add `count` rows, a share `harder` of them hard."""
        hard = draw.random(count) < harder
        self.hard = np.concatenate([self.hard, hard])
        self.open = np.concatenate([self.open, hard | (draw.random(count) < OPEN)])

    @property
    def weight(self) -> float:
        """The share of the rows on which a model's quality counts."""
        return 1 - float(self.hard.mean())


@dataclass(eq=False)
class Series:
    """The nights of one series with one rule; `figures` are those of each model besides the comparisons."""

    recipe: Recipe
    figures: EvaluationFigures
    rule: Rule
    course: Course
    draw: np.random.Generator
    rows: GrowingRows = field(default_factory=GrowingRows)
    live: Contender | None = None
    earlier: list[Contender] = field(default_factory=list)
    best_ever: float = -np.inf
    behind: float = 0.0
    refused: list[bool] = field(default_factory=list)

    def night(self, number: int) -> None:
        """Train a model, decide about it, and note how far the live model is behind."""
        self.rows.grow(DAILY if number else ROWS, self.course.harder if number else 0.0, self.draw)
        quality = -self.course.loss(number) + self.draw.normal(0, self.course.spread)
        model = Contender(quality, np.zeros(0, dtype=bool))
        for item in (model, *self.earlier, *([self.live] if self.live else [])):
            item.see(self.rows, self.draw)
        promoted = make_decision(self.recipe, self.figures, self._compared(model), None, None).promote
        self.refused.append(not promoted)
        if promoted:
            self._promote(model)
        assert self.live is not None
        self.behind = max(self.behind, self.rows.weight * (self.best_ever - self.live.quality))

    def _compared(self, model: Contender) -> Compared:
        rivals: dict[RivalName, Contender | None] = {"champion": self.live, "best": None}
        if self.rule == "champion and best":
            rivals["best"] = self._best()
        labels = np.zeros(len(model.right), dtype=np.int64)
        return Compared(
            tuple(
                compare(self.recipe, labels, _wrong(model), _wrong(rival), name)
                for name, rival in rivals.items()
                if rival is not None
            )
        )

    def _best(self) -> Contender | None:
        return max(self.earlier, key=lambda item: int(item.right.sum()), default=None)

    def _promote(self, model: Contender) -> None:
        if self.live is not None:
            best = self._best()
            newest = [*self.earlier, self.live][-KEPT:]
            self.earlier = [item for item in self.earlier if item is best and item not in newest] + newest
        self.live = model
        self.best_ever = max(self.best_ever, model.quality)


def _wrong(model: Contender) -> np.ndarray[Any, Any]:
    """Return its answers to rows whose label is 0."""
    return (~model.right).astype(np.int64)


def perfect_figures(recipe: Recipe) -> EvaluationFigures:
    """Return the figures of a model that is right everywhere."""
    perfect = Estimate(value=1.0, low=1.0, high=1.0)
    metrics = dict.fromkeys(recipe.metrics, perfect)
    passed = CapabilityFigures(rate=perfect, cases=1, passed=1, tests=())
    return EvaluationFigures(
        test=metrics,
        test_rows=1,
        test_without_train_texts=metrics,
        test_without_train_texts_rows=1,
        slices=(),
        gate=metrics,
        gate_rows=1,
        behaviour=dict.fromkeys(recipe.gate.behaviour, passed),
        sample=False,
    )


def main() -> None:
    """Print the table of docs/reference/gates.md, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--series", type=int, default=20, help="number of series of each course")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    found = [measure(course, rule, arguments.nights, arguments.series) for course in COURSES for rule in RULES]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    names = (
        "Models",
        "Compared with",
        "Refused, first 100 nights",
        "Refused, last 100",
        "Behind, median",
        "Behind, worst",
    )
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for row in found:
        refused = f"{row['refused_first']:.0%} | {row['refused_last']:.0%}"
        print(f"| {row['models']} | {row['rule']} | {refused} | {row['median']:.4f} | {row['worst']:.4f} |")


def measure(course: Course, rule: Rule, nights: int, series: int) -> dict[str, Any]:
    """Return the shares of refused models, and how far the live model was behind at most in each series."""
    played = [play(course, rule, nights, SEED + number) for number in range(series)]
    refused = np.array([item.refused for item in played])
    behind = [item.behind for item in played]
    return {
        "models": course.name,
        "rule": rule,
        "nights": nights,
        "refused_first": float(refused[:, :100].mean()),
        "refused_last": float(refused[:, -100:].mean()),
        "median": float(np.median(behind)),
        "worst": max(behind),
        "behind": behind,
    }


def play(course: Course, rule: Rule, nights: int, seed: int) -> Series:
    """Return a series after its last night."""
    recipe = load_recipe("nsmc", "embedded")
    series = Series(recipe, perfect_figures(recipe), rule, course, np.random.default_rng(seed))
    for number in range(nights):
        series.night(number)
    return series


if __name__ == "__main__":
    main()
