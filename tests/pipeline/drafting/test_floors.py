"""Proposed thresholds: the margin fits the gate rows, and the table is valid TOML."""

from __future__ import annotations

import tomllib
from itertools import permutations

import numpy as np
import pytest

from pipeline.drafting.floors import Proposal, floor_below, margin_of
from pipeline.errors import RecipeError
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.registry import task_of


@pytest.mark.parametrize("rows", [60, 600])
def test_margin_is_the_smallest_that_fits_the_rows(rows: int) -> None:
    recipe = load_recipe("nsmc", "embedded")
    drawn = np.random.default_rng(7)
    labels = drawn.integers(0, 2, rows)
    answers = [np.where(drawn.random(rows) < 0.85, labels, 1 - labels) for _ in range(3)]
    margin = margin_of(recipe, labels, answers)
    found = [task_of(recipe).difference(labels, *pair) for pair in permutations(answers, 2)]
    needed = [max(2 * (item["value"] - item["low"]), -item["low"]) for item in found]
    assert max(needed) <= margin < max(needed) + 0.001


def test_more_rows_allow_a_smaller_margin() -> None:
    recipe = load_recipe("nsmc", "embedded")
    labels = np.tile([0, 1], 1000)
    one, other = (np.where(np.arange(2000) % 10 == start, 1 - labels, labels) for start in (0, 5))
    few, many = (margin_of(recipe, labels[:rows], [one[:rows], other[:rows]]) for rows in (100, 2000))
    assert few > 2 * many


def test_threshold_is_below_the_interval_and_never_empty() -> None:
    assert floor_below(0.8479) == 0.847
    for low in (-0.1, 0.0004, 1.0):
        with pytest.raises(RecipeError, match="cannot be a threshold"):
            floor_below(low)


def test_table_is_valid_toml() -> None:
    proposal = Proposal({"accuracy": 0.8, "f1": 0.79}, {"basics": 0.5}, 0.04, (7, 8), {"accuracy": (0.84, 0.85)}, 180)
    gate = {"floors": {"accuracy": 0.8, "f1": 0.79}, "margin": 0.04, "behaviour": {"basics": 0.5}}
    assert tomllib.loads(proposal.toml) == {"gate": gate}
    assert "seeds 7, 8: accuracy 0.840, 0.850" in proposal.toml
