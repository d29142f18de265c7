"""Files of recipe overrides: read as written, and overridden by options."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.options import overrides
from pipeline.errors import RecipeError
from pipeline.job import open_job
from pipeline.recipes.overrides import format_overrides, read_overrides
from pipeline.settings import load_settings


def test_overrides_are_written_as_they_are_read(tmp_path: Path) -> None:
    chosen = {
        "title": '따옴표 "와" \\',
        "labels": ["나쁨", "좋음"],
        "model.scratch": {"layers": 1, "dropout": 0.1},
        "train.learning_rate": 1e-05,
        "train.epochs": 2,
        "gate.behaviour.word-order": 0.5,
    }
    file = tmp_path / "overrides.toml"
    file.write_text(format_overrides(chosen), encoding="utf-8")
    del chosen["model.scratch"]
    assert read_overrides(file) == chosen | {"model.scratch.layers": 1, "model.scratch.dropout": 0.1}


def test_options_override_the_overrides_file(tmp_path: Path) -> None:
    file = tmp_path / "overrides.toml"
    file.write_text("[train]\nepochs = 2\nwarmup = 0.2\nseed = 3\n", encoding="utf-8")
    job = open_job(
        "nsmc", settings=load_settings(), overrides=overrides(["train.warmup=0.3", "train.seed=4"], file, seed=5)
    )
    assert (job.recipe.train.epochs, job.recipe.train.warmup, job.recipe.train.seed) == (2, 0.3, 5)
    file.write_text("[train\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"overrides\.toml is not TOML"):
        overrides([], file)
