"""Head-only tuning: the base model is frozen, and the head learns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from pipeline.errors import RecipeError
from pipeline.models.heads import Head
from pipeline.models.tokenizer import load_tokenizer
from pipeline.tasks.registry import task_of
from pipeline.tasks.trained import load_trained
from tests.support.small_pipeline import Road, open_road, save_base, small_recipe, weights

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("problem", ["single_label_classification", "regression"])
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_a_head_answers_as_the_whole_model_does(kind: str, problem: str) -> None:
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        problem_type=problem,
        num_labels=1 if problem == "regression" else 3,
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, 30, (4, 7))
    labels = torch.tensor([0.5, 2.0, 1.0, 4.0]) if problem == "regression" else torch.tensor([0, 1, 2, 1])
    whole = model(input_ids=ids, labels=labels)
    states = model.base_model(input_ids=ids).last_hidden_state[:, 0]
    head = Head(model)
    found = head(states, labels)
    torch.testing.assert_close(found["logits"], whole.logits)
    torch.testing.assert_close(found["loss"], whole.loss)
    assert head(states).keys() == {"logits"}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_only_the_head_is_trained(kind: str, pooling: str, tmp_path: Path) -> None:
    shape = {"embedding_size": 16} if kind == "electra" else {}
    base = save_base(tmp_path / "base", ["정말 재미있는 영화"], kind=kind, **shape)
    recipe = small_recipe("nsmc", model__base=str(base), model__pooling=pooling, train__tune="head", train__epochs=1)
    road = open_road(recipe, tmp_path / "home", train=300, test=20)
    before, after = load_file(base / "model.safetensors"), weights(road.trained)
    kept = {name: tensor for name, tensor in after.items() if ".encoder." in name or ".embeddings" in name}
    assert kept
    for name, tensor in kept.items():
        assert torch.equal(tensor, before[name.split(".", 1)[1]]), name
    assert any("classifier" in name for name in after.keys() - kept.keys())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_head_learns_what_the_base_model_knows(reviews: Road, pooling: str, tmp_path: Path) -> None:
    # The encoder, without its head, of a model that was trained on the same rows.
    AutoModel.from_pretrained(reviews.trained.path / "model").save_pretrained(tmp_path / "base")
    load_tokenizer(reviews.trained.path / "model").save_pretrained(tmp_path / "base")
    recipe = small_recipe(
        "nsmc", model__base=str(tmp_path / "base"), model__pooling=pooling, train__tune="head", train__epochs=4
    )
    road = open_road(recipe, tmp_path / "home")
    figures = road.trained.manifest.figures
    rows = pd.read_parquet(road.tokenized.path / "validation.parquet")
    labels = rows["label"].to_numpy()
    assert figures["validation"]["accuracy"] > max(labels.mean(), 1 - labels.mean()) + 0.05
    found = task_of(road.recipe).metrics(labels, load_trained(road.recipe, road.trained).answer_encoded(rows))
    assert found == pytest.approx(figures["validation"], abs=0.03)
    assert figures["padding"] == 0.0


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("nsmc", {}, "needs a pretrained encoder"),
        ("klue-sts", {"model__base": "klue/bert-base", "model__objective": "bi-encoder"}, "has no head"),
    ],
)
def test_what_has_no_head_to_train_is_refused(name: str, overrides: dict[str, str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        small_recipe(name, train__tune="head", **overrides)
