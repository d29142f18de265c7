"""Kinds without a shipped recipe, through every stage, with answers as trained.

`binary-label` of KLUE-STS makes a classification of pairs, NSMC's label as a number a regression over single texts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cli.predict import predict_lines
from pipeline.recipes.schema import Recipe
from pipeline.store.releases import read_card
from pipeline.tasks.trained import load_trained
from serving.engine.engine import Engine
from tests.support.small_pipeline import Road, open_road, small_recipe

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("compiled_templates")]


def binary(recipe: Recipe) -> Recipe:
    """Return the similarity recipe as a classification into similar and other pairs."""
    document = recipe.model_dump() | {
        "kind": "classification",
        "labels": ("different", "alike"),
        "score_range": None,
        "similar_at": None,
        "behaviour": {},
    }
    document["data"]["label"] = "labels.binary-label"
    document["model"] |= {"objective": "cross-encoder", "pooling": "cls"}
    document["gate"] |= {"floors": {"accuracy": 0.01, "f1": 1e-9}, "behaviour": {}, "margin": 0.9}
    return Recipe.model_validate(document)


def test_pairs_are_classified_through_every_stage(tmp_path: Path) -> None:
    road = open_road(binary(small_recipe("klue-sts")), tmp_path, train=300, test=100)
    assert set(pd.read_parquet(road.validated.path / "train.parquet")["label"]) == {0, 1}
    card = read_card(road.released)
    assert (card.kind, card.inputs, card.labels) == ("classification", "pair", ("different", "alike"))
    rows = pd.read_parquet(road.tokenized.path / "test.parquet").head(20)
    logits = load_trained(road.recipe, road.trained).answer_encoded(rows)
    texts = pd.read_parquet(road.validated.path / "test.parquet").head(20)
    engine = Engine(road.released.path)
    answers = engine.answer(list(zip(texts["text"], texts["text_pair"], strict=True))).values
    assert answers.sum(1) == pytest.approx(1.0, abs=1e-5)
    assert np.abs(answers - logits).max() <= beside(road)
    with pytest.raises(ValueError, match="classification"):
        engine.score([("가", "나")])


def beside(road: Road) -> float:
    """How far answers of the int8 file may be from the model: twice what the export measured, for other batches."""
    return 2 * float(road.released.manifest.figures["parity"]["int8"]["largest_difference"]) + 1e-3


def scored(recipe: Recipe) -> Recipe:
    """Return the review recipe as a regression from 0 to 1."""
    document = recipe.model_dump() | {
        "kind": "regression",
        "labels": (),
        "score_range": (0.0, 1.0),
        "similar_at": 0.5,
        "behaviour": {},
    }
    document["gate"] |= {"floors": {"pearson": 1e-9, "f1": 1e-9}, "behaviour": {}, "margin": 0.9}
    # A model with so little training has very close scores, so small differences change their order.
    document["export"]["fp16"]["metric_change"] = 0.01
    return Recipe.model_validate(document)


def test_texts_are_scored_through_every_stage(tmp_path: Path) -> None:
    road = open_road(scored(small_recipe("nsmc")), tmp_path, train=300, test=100)
    assert pd.read_parquet(road.validated.path / "train.parquet")["label"].dtype == np.float64
    card = read_card(road.released)
    assert (card.kind, card.inputs, card.objective, card.score_range) == ("regression", "text", None, (0.0, 1.0))
    rows = pd.read_parquet(road.tokenized.path / "test.parquet").head(20)
    outputs = load_trained(road.recipe, road.trained).answer_encoded(rows)
    texts = pd.read_parquet(road.validated.path / "test.parquet").head(20)["text"]
    engine = Engine(road.released.path)
    answers = engine.score([(text,) for text in texts])
    assert np.abs(answers - outputs).max() <= beside(road)
    assert np.corrcoef(answers, outputs)[0, 1] > 0.9
    assert engine.methods == ()
    found = list(predict_lines(engine, [text.encode() for text in texts], chunk=len(texts)))
    assert [item["score"] for item in found] == pytest.approx(answers.tolist(), abs=1e-5)
    assert "similar" not in found[0]
