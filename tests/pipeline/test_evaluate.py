"""Evaluate: figures that follow from the stored predictions, with and without texts that train has."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from pipeline.errors import ArtifactError, DataError
from pipeline.evaluate import evaluate
from pipeline.metrics import compute_metrics, intervals
from pipeline.model import load_trained
from pipeline.plots import draw
from pipeline.recipe import load_recipe
from pipeline.tokenize import split_rows, tokenize
from tests.tiny import Road, make_validated, small_recipe


@pytest.fixture(params=["nsmc", "klue-sts"])
def road(request: pytest.FixtureRequest, reviews: Road, pairs: Road) -> Road:
    return reviews if request.param == "nsmc" else pairs


@pytest.fixture(scope="module")
def repeated(reviews: Road) -> Road:
    """Reviews with 30 test rows whose texts are in train, half of them under the other label."""
    copied = reviews.rows["train"].head(30).copy()
    copied["id"] = [f"copy-{number}" for number in range(30)]
    copied.loc[copied.index[:15], "label"] = 1 - copied["label"].iloc[:15]
    return reviews.with_rows(reviews.rows | {"test": pd.concat([reviews.rows["test"], copied], ignore_index=True)})


def test_figures_follow_from_the_stored_predictions(road: Road) -> None:
    table = pd.read_parquet(road.evaluated.path / "test.parquet")
    found = compute_metrics(road.recipe, table["label"].to_numpy(), table["prediction"].to_numpy())
    figures = road.evaluated.figures
    assert {name: figures["test"][name]["value"] for name in road.recipe.metrics} == pytest.approx(found)
    for figure in figures["test"].values():
        assert figure["low"] < figure["value"] < figure["high"]
    assert figures["test_rows"] == len(table) == len(road.rows["test"])


def test_predictions_are_those_of_the_model_on_the_texts(road: Road) -> None:
    for name in ("test", "gate"):
        table = pd.read_parquet(road.evaluated.path / f"{name}.parquet")
        answers = load_trained(road.recipe, road.trained).answer(table)
        if road.recipe.kind == "classification":
            assert (table["prediction"] == answers.argmax(axis=1)).mean() > 0.995
            assert table["probability"].to_numpy() == pytest.approx(answers.max(axis=1), abs=1e-4)
        else:
            assert table["prediction"].to_numpy() == pytest.approx(answers, abs=1e-3)


def test_the_gate_side_is_the_one_that_training_did_not_see(road: Road) -> None:
    gate = pd.read_parquet(road.evaluated.path / "gate.parquet")
    trained_on = pd.read_parquet(road.tokenized.path / "train.parquet")["id"]
    assert gate["id"].tolist() == split_rows(road.recipe, road.rows["train"])["gate"]["id"].tolist()
    assert not set(gate["id"]) & set(trained_on)
    assert road.evaluated.figures["gate_rows"] == len(gate) > 0


def test_rows_whose_text_is_in_train_are_left_out_of_the_second_figures(repeated: Road) -> None:
    figures = repeated.evaluated.figures
    table = pd.read_parquet(repeated.evaluated.path / "test.parquet")
    new = table[~table["in_train"]]
    assert len(table) - len(new) >= 30
    assert figures["test_without_train_texts_rows"] == len(new)
    labels, predictions = new["label"].to_numpy(), new["prediction"].to_numpy()
    assert figures["test_without_train_texts"] == intervals(repeated.recipe, labels, predictions)
    # Half of the copies are labelled wrongly.
    assert figures["test"]["accuracy"]["value"] != figures["test_without_train_texts"]["accuracy"]["value"]


def test_a_test_file_of_nothing_new_is_refused(reviews: Road) -> None:
    copied = reviews.with_rows(reviews.rows | {"test": reviews.rows["train"].head(40)})
    with pytest.raises(DataError, match="every row is in"):
        evaluate(copied.job, copied.validated, copied.tokenized, reviews.trained)


def test_tokens_of_other_rows_are_refused(reviews: Road, pairs: Road) -> None:
    fewer = reviews.rows | {"test": reviews.rows["test"].head(100)}
    other = make_validated(reviews.job, fewer)
    with pytest.raises(ArtifactError, match=r"test\.parquet is of other rows; run tokenize again"):
        evaluate(reviews.job, other, reviews.tokenized, reviews.trained)
    assert tokenize(reviews.job, other).key != reviews.tokenized.key


def test_the_picture_is_one(road: Road) -> None:
    content = (road.evaluated.path / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(road.evaluated.path / "plot.png")
    assert min(pixels.shape[:2]) > 400
    assert np.ptp(pixels[..., :3]) > 0.9


def test_a_picture_of_one_foreseen_label_and_of_a_constant_score_can_be_drawn(tmp_path: Path) -> None:
    sure = np.tile([0.9, 0.1], (4, 1))
    draw(load_recipe("nsmc", "embedded"), np.array([0, 0, 0, 0]), sure, tmp_path / "a.png")
    draw(load_recipe("klue-sts", "embedded"), np.array([0.0, 5.0]), np.array([2.0, 2.0]), tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_evaluating_is_not_done_again_for_another_threshold(road: Road) -> None:
    floors = dict.fromkeys(road.recipe.metrics, 0.123)
    other = road.with_recipe(small_recipe(road.recipe.name, gate__floors=floors))
    assert evaluate(other.job, road.validated, road.tokenized, road.trained).ref == road.evaluated.ref


def test_figures_are_numbers(road: Road) -> None:
    for part in ("test", "test_without_train_texts"):
        for figure in road.evaluated.figures[part].values():
            assert all(math.isfinite(value) for value in figure.values())
