"""Tiny data for the benchmarks: enough to run them, too little to measure anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cut import first_rows
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.sample import write_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data files in the format of the published ones."""
    directory = write_sample(tmp_path_factory.mktemp("data"))
    for name in recipe_names():
        spec = load_recipe(name, "embedded").data
        for file, rows in ((directory / spec.train, 400), (directory / spec.test, 100)):
            file.write_bytes(first_rows(file, rows))
    return directory
