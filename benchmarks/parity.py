"""Simulate how often the bounds on an exported file refuse a good file, and how often a bad one passes.

python -m benchmarks.parity [--nights 100000] [--json]
Every night draws new rows, and the pipeline's own code judges them. A file is good if its true share of changed labels
and its true change of the metric are at most the recipe's bounds. For single texts there are two cases: the changed
labels include enough lost ones to change the accuracy by its bound, or all changed labels were right. For pairs, the
scores have r = 0.8 with the labels, and the file adds noise to them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from pipeline.export.parity import beyond, change_error
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import ParityBound, Recipe

Numbers = np.ndarray[Any, Any]

#: True share of changed labels, as multiples of the bound.
TIMES = (0.2, 0.5, 1, 3, 5, 10, 20)
ROWS = (100, 500, 1000, 5000)
#: Nights of pairs per night of single texts; pairs are slower because each night is computed row by row.
PAIRED = 0.1
SEED = 20_261_129


def main() -> None:
    """Print a table of refused shares, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=100_000)
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    document = measure(arguments.nights, arguments.rows)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    times = " | ".join(f"{number:g}" for number in TIMES)
    print(f"| Recipe | File | Labels that were right | Rows | {times} |\n|{' --- |' * (4 + len(TIMES))}")
    for row in document["cases"]:
        shares = " | ".join(f"{share:.2%}" for share in row["refused"])
        print(f"| {row['recipe']} | {row['precision']} | {row['lost']} | {row['rows']:,} | {shares} |")


def measure(nights: int, sizes: Sequence[int], multiples: Sequence[float] = TIMES) -> dict[str, Any]:
    """Return the share of refused nights by recipe, file, rows and `multiples`; `lost` names the changed labels."""
    cases = []
    for recipe in (load_recipe(name, "full") for name in ("nsmc", "klue-sts")):
        ways = ("as many as the metric may", "all") if recipe.kind == "classification" else ("by noise",)
        for precision, rows, lost in itertools.product(("fp16", "int8"), sizes, ways):
            bound: ParityBound = getattr(recipe.export, precision)
            draw = np.random.default_rng(SEED)
            refused = [_refused(draw, recipe, bound, rows, times, lost == "all", nights) for times in multiples]
            names = {"recipe": recipe.name, "precision": precision, "lost": lost, "rows": rows}
            cases.append(names | {"refused": refused})
    return {"nights": nights, "times": multiples, "cases": cases}


def _refused(
    draw: np.random.Generator, recipe: Recipe, bound: ParityBound, rows: int, times: float, all_lost: bool, nights: int
) -> float:
    share = times * bound.changed_labels
    if recipe.kind == "regression":
        return _refused_scores(draw, recipe, bound, rows, share, max(1, round(PAIRED * nights)))
    change = share if all_lost else min(share, times * bound.metric_change)
    return _refused_labels(draw, recipe, bound, rows, ((share + change) / 2, (share - change) / 2), nights)


def _refused_labels(
    draw: np.random.Generator,
    recipe: Recipe,
    bound: ParityBound,
    rows: int,
    shares: tuple[float, float],
    nights: int,
) -> float:
    """Return the share of refused nights; `shares` of the rows are right only before export, and only after it."""
    drawn = draw.multinomial(rows, [*shares, 1 - sum(shares)], size=nights)[:, :2]
    counts, found = np.unique(drawn, axis=0, return_counts=True)
    refused = [
        _is_refused(
            bound, (lost + won) / rows, (lost - won) / rows, change_error(recipe, *_answers(rows, lost, won)), rows
        )
        for lost, won in counts
    ]
    return float(found @ refused / nights)


def _answers(rows: int, lost: int, won: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return labels, and probabilities before and after: `lost` rows become wrong and `won` rows become right."""
    before, after = np.tile([0.2, 0.8], (rows, 1)), np.tile([0.2, 0.8], (rows, 1))
    before[:won] = after[won : won + lost] = [0.8, 0.2]
    return np.ones(rows, dtype=np.int64), before, after


def _refused_scores(
    draw: np.random.Generator, recipe: Recipe, bound: ParityBound, rows: int, share: float, nights: int
) -> float:
    """Return the refused share for scores of mean 2.5 and deviation 1; about `share` of them cross `similar_at`."""
    assert recipe.similar_at is not None
    noise = share / NormalDist(2.5, 1).pdf(recipe.similar_at) / math.sqrt(2 / math.pi)
    refused = 0
    for _ in range(nights):
        before = draw.normal(2.5, 1, rows)
        labels = 2.5 + 0.8 * (before - 2.5) + draw.normal(0, 0.6, rows)
        after = before + draw.normal(0, noise, rows)
        changed = ((before >= recipe.similar_at) != (after >= recipe.similar_at)).mean()
        change = np.corrcoef(labels, after)[0, 1] - np.corrcoef(labels, before)[0, 1]
        refused += _is_refused(bound, changed, change, change_error(recipe, labels, before, after), rows)
    return refused / nights


def _is_refused(bound: ParityBound, changed: float, change: float, error: float, rows: int) -> bool:
    # As in `measure_parity`, without F1 and the figures that are not judged, which take most of its time.
    parity = {"largest_difference": 0.0, "changed_labels": changed, "metric_change": abs(change), "metric_error": error}
    return beyond(parity, bound, rows) is not None


if __name__ == "__main__":
    main()
