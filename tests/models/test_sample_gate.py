"""The sample's own thresholds: a model that is trained on shuffled labels does not pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.job import Job, day_of, open_store
from pipeline.recipes.loading import load_recipe
from pipeline.sample import write_sample
from pipeline.settings import load_settings
from pipeline.stages.decide import decide
from pipeline.store.decisions import read_decision
from tests.support.small_pipeline import Road, sample_rows

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_model_of_shuffled_labels_fails(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, "embedded", sample=True)
    rows = sample_rows(recipe, write_sample(tmp_path / "sample"))
    labels = rows["train"]["label"]
    shuffled = labels.sample(frac=1.0, random_state=11).to_numpy()
    assert (shuffled != labels).mean() > 0.4
    rows["train"] = rows["train"].assign(label=shuffled)
    settings = load_settings().model_copy(update={"home": tmp_path / "home"})
    road = Road(Job(recipe, settings, open_store(settings), run="gate", cutoff=day_of(settings)), rows)
    assert not read_decision(decide(road.job, road.evaluated, None)).promote
    first = recipe.metrics[0]
    # Far below the threshold.
    assert road.evaluated.manifest.figures["test"][first]["high"] < recipe.gate.floors[first], (
        road.evaluated.manifest.figures["test"]
    )
