"""Warm start from the champion: its weights, its base model, and reuse if it was already trained on all data."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import date

import pytest
import torch

from pipeline.errors import RecipeError
from pipeline.stages.running import run_stage
from pipeline.stages.stage import TRAIN
from pipeline.stages.train import train
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import SeenData, TrainingFigures
from tests.support.gate_releases import release_of, republished, serve
from tests.support.small_pipeline import Road, open_road, save_base, small_recipe, weights

pytestmark = pytest.mark.torch

CHOSEN = {"train__start": "champion", "train__epochs": 1}


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Return a recipe that starts from its champion, which does not exist yet."""
    home = tmp_path_factory.mktemp("warm")
    base = save_base(home / "base", ["정말 재미있는 영화"])
    recipe = small_recipe("nsmc", model__base=str(base), **CHOSEN)
    return open_road(recipe, home / "home", train=200, test=20)


@pytest.fixture(scope="module")
def champion(road: Road) -> Artifact:
    """Return the release of the first run, which starts from the base model."""
    assert set(road.trained.manifest.inputs) == {"tokenized"}
    release = release_of(road.trained)
    serve(release)
    return release


def test_the_next_night_starts_from_its_weights(road: Road, champion: Artifact) -> None:
    still = small_recipe("nsmc", **{**CHOSEN, "model__base": road.recipe.model.base, "train__learning_rate": 1e-9})
    made = train(road.with_recipe(still).job, road.tokenized, champion)
    assert made.input_ref("start") == road.trained.ref
    for name, tensor in weights(road.trained).items():
        torch.testing.assert_close(weights(made)[name], tensor, atol=1e-5, rtol=0)
    # Reused, and rebuilt once another release is the champion.
    assert train(road.with_recipe(still).job, road.tokenized, champion).ref == made.ref
    other = release_of(republished(road.trained))
    assert train(road.with_recipe(still).job, road.tokenized, other).key != made.key


def test_champion_with_identical_inputs_is_reused(road: Road, champion: Artifact) -> None:
    assert run_stage(road.job, TRAIN, [road.tokenized]).artifact.ref == road.trained.ref
    forced = train(replace(road.job, force=True), road.tokenized, champion)
    assert forced.input_ref("start") == road.trained.ref


@pytest.mark.parametrize(
    "changes", [{"figures": {"base": {"base": "another", "revision": "1"}}}, {"fields": {"kind": "regression"}}]
)
def test_a_champion_of_another_kind_is_no_start(
    road: Road, changes: dict[str, dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = road.trained.manifest
    told = {name: getattr(manifest, name) | value for name, value in changes.items()}
    with caplog.at_level(logging.WARNING):
        made = train(road.job, road.tokenized, release_of(republished(road.trained, **told)))
    assert made.ref == road.trained.ref
    assert "has another base model or kind: training starts from the base model" in caplog.text


def champion_that_has_seen(road: Road, held_out: float, newest: str | None) -> Artifact:
    seen = {"held_out": held_out, "newest": newest}
    return release_of(republished(road.trained, figures=road.trained.manifest.figures | {"seen": seen}))


@pytest.mark.parametrize("day", [9, 27])
def test_backfilled_run_does_not_start_from_the_future(road: Road, day: int, caplog: pytest.LogCaptureFixture) -> None:
    knows = champion_that_has_seen(road, 0.1, "2015-08-27")
    made = train(replace(road.job, cutoff=date(2015, 8, day)), road.tokenized, knows)
    assert made.ref == road.trained.ref
    assert (
        f"the champion has seen data of 2015-08-27, and the date of this run is 2015-08-{day:02}: training starts from "
        "the base model" in caplog.text
    )


def test_training_records_what_its_start_has_seen(road: Road) -> None:
    knows = champion_that_has_seen(road, 0.05, "2015-08-27")
    still = small_recipe("nsmc", **{**CHOSEN, "model__base": road.recipe.model.base, "train__learning_rate": 1e-9})
    made = train(replace(road.job, recipe=still, cutoff=date(2015, 8, 28)), road.tokenized, knows)
    assert made.manifest.inputs["start"].role == "started_from"
    assert made.made_from == [road.tokenized.ref]
    assert TrainingFigures.read(made).seen == SeenData(held_out=0.05, newest=date(2015, 8, 27))
    assert TrainingFigures.read(road.trained).seen == SeenData(held_out=road.recipe.data.gate_share, newest=None)


def test_model_that_may_have_seen_every_row_is_no_start(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    assert train(road.job, road.tokenized, champion_that_has_seen(road, 0.0, None)).ref == road.trained.ref
    assert "the champion may have been trained on every row" in caplog.text


def test_from_scratch_there_is_nothing_to_start_from() -> None:
    with pytest.raises(RecipeError, match="each run has its own vocabulary"):
        small_recipe("nsmc", train__start="champion")
