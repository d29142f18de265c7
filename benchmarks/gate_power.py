"""Simulate which losses the promotion gate lets through, and how often it refuses an equally good model.

python -m benchmarks.gate_power [--nights 2000] [--json]
Every night draws the answers of two models to the gate rows, and the gate's own comparison judges them with the margin
of each recipe and profile. For single texts, one model alone is right on a given share of the rows. For pairs, labels
and scores are normal with given correlations (`CASES`). Pairs get a tenth of the nights: each takes 50 ms.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.promotion_gate import compare
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.checks import ComparisonCheck

Numbers = np.ndarray[Any, Any]

PAIRED = 0.1
SEED = 20_261_129
#: Steps of the search for a loss; each moves it by the distance of the quantile from the margin.
STEPS = 3


@dataclass(frozen=True)
class Case:
    """A recipe on its usual data: the number of gate rows, and how much two equally good models differ.

    `apart` is the share of rows on which one of them alone is right. For scores, `quality` is their correlation with
    the labels, and `alike` that between the two models.
    """

    recipe: str
    profile: str
    data: str
    rows: int
    apart: float = 0.0
    quality: float = 0.0
    alike: float = 0.0

    def load(self) -> Recipe:
        """Return the recipe with the settings of this case."""
        return load_recipe(self.recipe, self.profile, sample=self.data == "sample")

    def answers(self, draw: np.random.Generator, loss: float) -> tuple[Numbers, Numbers, Numbers]:
        """Return labels, and the answers of a challenger that is worse by `loss` and of the champion, each (rows,)."""
        if not self.apart:
            return self._scores(draw, loss)
        apart = max(self.apart, abs(loss))
        lost, won, _ = draw.multinomial(self.rows, [(apart + loss) / 2, (apart - loss) / 2, 1 - apart])
        labels = np.zeros(self.rows, dtype=np.int64)
        ours, theirs = labels.copy(), labels.copy()
        ours[:lost] = theirs[lost : lost + won] = 1
        return labels, ours, theirs

    def _scores(self, draw: np.random.Generator, loss: float) -> tuple[Numbers, Numbers, Numbers]:
        ours, theirs = self.quality - loss, self.quality
        correlations = np.array([[1, ours, theirs], [ours, 1, self.alike], [theirs, self.alike, 1]])
        labels, challenger, champion = np.linalg.cholesky(correlations) @ draw.standard_normal((3, self.rows))
        return labels, challenger, champion


#: Rows without arrivals. Two trainings of `nsmc` differ on fewer rows than assumed here: 7% in docs/results/nights.md,
#: 4% of the sample. The correlations of `klue-sts` are assumptions, for `full` from the published r; on the sample, two
#: trainings were more alike (0.98).
CASES = (
    Case("nsmc", "full", "150,000 reviews", 8_685, apart=0.08),
    Case("nsmc", "embedded", "150,000 reviews", 8_685, apart=0.08),
    Case("nsmc", "embedded", "sample", 397, apart=0.06),
    Case("klue-sts", "full", "11,668 pairs", 1_167, quality=0.92, alike=0.975),
    Case("klue-sts", "full", "5,749 pairs", 576, quality=0.92, alike=0.975),
    Case("klue-sts", "embedded", "5,749 pairs", 576, quality=0.55, alike=0.85),
    Case("klue-sts", "embedded", "sample", 298, quality=0.87, alike=0.96),
)


def main() -> None:
    """Print the table of docs/reference/gates.md, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    found = [measure(case, arguments.nights) for case in CASES]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    names = ("Recipe", "Profile", "Data", "Gate rows", "Margin", "Passes in 50%", "Passes in 5%", "Equal model refused")
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for row in found:
        print(
            f"| {row['recipe']} | {row['profile']} | {row['data']} | {row['rows']:,} | {row['margin']:g} "
            f"| {row['even']:.4f} | {row['caught']:.4f} | {row['refused']:.1%} |"
        )


def measure(case: Case, nights: int) -> dict[str, Any]:
    """Return the losses of models that pass with a probability of 50% and 5%, and the share of refused equal models."""
    recipe = case.load()
    return {
        "recipe": case.recipe,
        "profile": case.profile,
        "data": case.data,
        "rows": case.rows,
        "margin": recipe.gate.margin,
        "nights": _nights_of(case, nights),
        "even": loss_that_passes(case, 0.5, nights),
        "caught": loss_that_passes(case, 0.05, nights),
        "refused": 1 - passed_share(case, 0.0, nights),
    }


def passed_share(case: Case, loss: float, nights: int) -> float:
    """Return the share of nights in which the gate lets a challenger pass that is worse by `loss`."""
    return sum(check.passed for check in _compared(case, loss, nights)) / _nights_of(case, nights)


def loss_that_passes(case: Case, share: float, nights: int) -> float:
    """Return the true loss with which a challenger passes in `share` of the nights."""
    margin = case.load().gate.margin
    loss = margin
    for _ in range(STEPS):
        # A challenger passes whose lower end is at least minus the margin. A further loss moves all lower ends alike.
        lows = [check.value for check in _compared(case, loss, nights)]
        loss += float(np.quantile(lows, 1 - share)) + margin
    return loss


def _compared(case: Case, loss: float, nights: int) -> list[ComparisonCheck]:
    recipe, draw = case.load(), np.random.default_rng(SEED)
    return [compare(recipe, *case.answers(draw, loss), "champion") for _ in range(_nights_of(case, nights))]


def _nights_of(case: Case, nights: int) -> int:
    return nights if case.apart else max(1, round(PAIRED * nights))


if __name__ == "__main__":
    main()
