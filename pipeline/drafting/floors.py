"""Propose thresholds: train a recipe with several seeds, and take the lower ends of the intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import pandas as pd

from pipeline.errors import RecipeError
from pipeline.job import Job
from pipeline.metrics.arrays import Numbers
from pipeline.recipes.schema import Recipe
from pipeline.stages.running import build
from pipeline.stages.stage import EVALUATE, TOKENIZE, TRAIN, VALIDATE
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import EvaluationFigures
from pipeline.tasks.registry import task_of

#: Smallest margin: a difference that a person would not notice.
LEAST_MARGIN = 0.005
#: Added to the largest loss of one seed against another.
SLACK = 0.005


@dataclass(frozen=True)
class Proposal:
    """Thresholds from several trainings, and the figures that they come from."""

    floors: dict[str, float]
    behaviour: dict[str, float]
    margin: float
    seeds: tuple[int, ...]
    figures: dict[str, tuple[float, ...]]
    "Values of each metric on the new texts of the test file, in the order of the seeds."
    gate_rows: int

    @property
    def toml(self) -> str:
        """Return the table `[gate]` for the recipe."""
        tests = [f"{name} = {bound}" for name, bound in self.behaviour.items()]
        floors = ", ".join(f"{name} = {bound}" for name, bound in self.floors.items())
        found = "; ".join(
            f"{name} {', '.join(f'{value:.3f}' for value in values)}" for name, values in self.figures.items()
        )
        seeds = ", ".join(map(str, self.seeds))
        lines = [
            f"# From trainings with seeds {seeds}: {found}. The thresholds are the lower ends of their 95% intervals.",
            f"# The margin is the smallest one for which {self.gate_rows:,} gate rows suffice (decision 33), and at",
            "# least the largest loss of one seed against another.",
            "[gate]",
            f"floors = {{ {floors} }}",
            f"margin = {self.margin}",
            *(["", "[gate.behaviour]", *tests] if tests else []),
        ]
        return "\n".join(lines) + "\n"


def propose_floors(job: Job, trainings: int, say: Callable[[str], None]) -> Proposal:
    """Train `trainings` models that differ only in their seed, and return the thresholds that all of them reach.

    A metric's threshold is the smallest lower end of a 95% interval on the new texts of the test file, a capability's
    that of Wilson's interval. For the margin see `margin_of`. `say` prints progress lines. Raises RecipeError if there
    are fewer than two trainings, and the errors of the stages.
    """
    if trainings < 2:
        raise RecipeError("at least two trainings are needed, because the margin is the difference between two of them")
    validated = build(job, VALIDATE)
    tokenized = build(job, TOKENIZE, validated)
    seeds = tuple(range(job.recipe.train.seed, job.recipe.train.seed + trainings))
    evaluated = []
    for number, seed in enumerate(seeds, 1):
        say(f"[{number}/{trainings}] {job.recipe.name} with seed {seed} ...")
        recipe = job.recipe.model_copy(update={"train": job.recipe.train.model_copy(update={"seed": seed})})
        seeded = replace(job, recipe=recipe)
        trained = build(seeded, TRAIN, tokenized)
        evaluated.append(build(seeded, EVALUATE, validated, tokenized, trained))
    return _proposal(job, seeds, evaluated)


def _proposal(job: Job, seeds: tuple[int, ...], evaluated: list[Artifact]) -> Proposal:
    recipe = job.recipe
    figures = [EvaluationFigures.read(item) for item in evaluated]
    tests = [item.test_without_train_texts for item in figures]
    rows = [pd.read_parquet(item.path / "gate.parquet") for item in evaluated]
    labels = rows[0]["label"].to_numpy()
    answers = [table["prediction"].to_numpy() for table in rows]
    return Proposal(
        floors={name: floor_below(min(item[name].low for item in tests)) for name in recipe.metrics},
        behaviour={
            name: floor_below(min(item.behaviour[name].rate.low for item in figures))
            for name in recipe.behaviour.capabilities
        },
        margin=margin_of(recipe, labels, answers),
        seeds=seeds,
        figures={name: tuple(item[name].value for item in tests) for name in recipe.metrics},
        gate_rows=len(labels),
    )


def margin_of(recipe: Recipe, labels: Numbers, answers: Sequence[Numbers]) -> float:
    """Return the margin for models that differ only in their seed, from their predictions (rows,) on the gate rows.

    It is at least twice the distance from a measured difference to the lower end of its interval, because otherwise
    equally good models are refused (decision 33), and at least the largest loss of a model against another one, at that
    lower end.
    """
    task = task_of(recipe)
    # Each pair in both orders: the interval of a difference is not symmetric.
    found = [task.difference(labels, *pair) for pair in permutations(answers, 2)]
    least = max(
        [LEAST_MARGIN, *(2 * (item["value"] - item["low"]) for item in found), *(-item["low"] for item in found)]
    )
    return min(0.99, math.ceil(least * 1000) / 1000)


def floor_below(low: float) -> float:
    """Return a threshold just below `low`. Raises RecipeError if it would let every model pass."""
    floor = math.floor(low * 1000) / 1000
    if not 0 < floor < 1:
        raise RecipeError(
            f"the lower end of an interval is {low:.4f}, which cannot be a threshold: the models learned too little; "
            "add rows, raise train.epochs, or choose another base model"
        )
    return floor
