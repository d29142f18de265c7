"""Recipes and data of tests of the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from tests.support.published import STRICT


@pytest.fixture
def nsmc() -> Recipe:
    return load_recipe("nsmc", "embedded", overrides=STRICT)


@pytest.fixture
def sts() -> Recipe:
    return load_recipe("klue-sts", "embedded", overrides=STRICT)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"
