"""Labels of regression recipes."""

from __future__ import annotations

import math

import pytest

from pipeline.recipes.loading import load_recipe


@pytest.mark.parametrize(
    ("label", "number"),
    [("3.5", 3.5), (" 2", 2.0), ("2\r", 2.0), ("1e1", 10.0), ("+.5", 0.5), ("5.", 5.0), ("-0", 0.0)],
)
def test_a_number_is_read_in_every_spelling(label: str, number: float) -> None:
    recipe = load_recipe("klue-sts", "embedded")
    assert recipe.task.label_number(recipe, label) == number


@pytest.mark.parametrize("label", ["", " ", "1,5", "1_0", "0x10", "１", "٢", "nan", "inf", "1e400", "2.0f"])
def test_other_labels_have_no_number(label: str) -> None:
    recipe = load_recipe("klue-sts", "embedded")
    assert math.isnan(recipe.task.label_number(recipe, label))


@pytest.mark.parametrize(("number", "valid"), [(0.0, True), (5.0, True), (-0.01, False), (5.01, False)])
def test_a_score_outside_the_range_is_invalid(number: float, valid: bool) -> None:
    recipe = load_recipe("klue-sts", "embedded")
    assert recipe.task.is_valid(recipe, number) is valid
    assert not recipe.task.is_valid(recipe, math.nan)
