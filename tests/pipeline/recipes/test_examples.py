"""The example of a recipe that is added: KLUE-NLI, outside the package and the nightly set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.job import Job
from pipeline.recipes.files import SHIPPED
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.stages.validate import validate

EXAMPLES = ROOT / "examples" / "recipes"
PLACES = (*SHIPPED, EXAMPLES)
FILES = ("klue-nli/klue-nli-v1.1_train.json", "klue-nli/klue-nli-v1.1_dev.json")


def test_example_is_added_to_the_shipped_recipes() -> None:
    assert "klue-nli" not in recipe_names()
    assert recipe_names(PLACES) == ("klue-nli", *recipe_names())


@pytest.mark.parametrize("profile", ["embedded", "full"])
def test_example_is_valid_and_judged_by_accuracy(profile: str) -> None:
    recipe = load_recipe("klue-nli", profile, directories=PLACES)
    assert recipe.labels == ("entailment", "neutral", "contradiction")
    assert recipe.metrics[0] == "accuracy"
    assert set(recipe.gate.behaviour) == set(recipe.behaviour.capabilities)
    # Above chance, with three labels.
    assert all(recipe.gate.floor_of(metric) > 1 / 3 for metric in recipe.metrics)
    assert set(recipe.gate.floors) == set(recipe.metrics)
    assert (recipe.data.train, recipe.data.test) == FILES


def test_official_dev_file_and_stand_in_pass_the_suite(make_job: Callable[..., Job], real_data: Path) -> None:
    if missing := [name for name in FILES if not (real_data / name).is_file()]:
        pytest.skip(f"{real_data} does not hold {missing[0]}")
    plain = make_job(load_recipe("klue-nli", "embedded", directories=PLACES))
    settings = plain.settings.model_copy(update={"recipes": str(EXAMPLES)})
    figures = validate(replace(plain, settings=settings), real_data).manifest.figures
    assert (figures["train_rows"], figures["test_rows"], figures["quarantined"]) == (7500, 3000, 0)
    assert figures["warnings"] == []
