"""The data gate on the complete published files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.validate import validate

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_the_published_files_pass(name: str, make_job: Callable[..., Job], real_data: Path) -> None:
    made = validate(make_job(load_recipe(name, "embedded")), real_data)
    # With all rows of every arrival.
    expected = {"nsmc": (150_000 + 17_169, 50_000), "klue-sts": (5_749, 519)}[name]
    assert (made.manifest.figures["train_rows"], made.manifest.figures["test_rows"]) == expected
    table = pd.read_parquet(made.path / "test.parquet")
    assert int(table["in_train"].sum()) == made.manifest.figures["test_in_train"]
