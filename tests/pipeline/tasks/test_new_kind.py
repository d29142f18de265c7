"""A kind that no module knows, pair classification by a bi-encoder, through every stage up to the release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from pipeline.metrics.arrays import Numbers
from pipeline.models.build import build_bi_encoder
from pipeline.models.heads import BiEncoder
from pipeline.models.network import Network
from pipeline.recipes.kinds.classification import Classification
from pipeline.recipes.kinds.inputs import SeparatePair
from pipeline.recipes.kinds.registry import KINDS
from pipeline.recipes.schema import Recipe
from pipeline.store.decisions import read_decision
from pipeline.store.releases import read_card
from pipeline.tasks.classification import ClassificationTask
from pipeline.tasks.registry import TASKS
from pipeline.tasks.trained import load_trained
from tests.support.small_pipeline import open_road, small_recipe

pytestmark = pytest.mark.torch

#: Logits per unit of cosine.
SHARPNESS = 4.0


class SeparatePairClassification(Classification, SeparatePair):
    """Labels of pairs whose texts are encoded separately."""


class CosineClassifier(BiEncoder):
    """A bi-encoder whose cosine decides between two labels."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        input_ids_pair: Tensor,
        attention_mask_pair: Tensor,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        cosines = super().forward(input_ids, attention_mask, input_ids_pair, attention_mask_pair)["logits"]
        logits = SHARPNESS * torch.stack([-cosines, cosines], dim=-1)
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class SeparatePairTask(ClassificationTask):
    """Labels of pairs by the cosine of their vectors."""

    def build(self, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> Network:
        encoder = build_bi_encoder(self.recipe, base, tokenizer).transformer
        module = CosineClassifier(encoder, self.recipe.model.pooling)
        return Network(module, encoder, module.vectors, "vectors")

    def combine(self, outputs: Sequence[Numbers]) -> Numbers:
        cosines = np.prod(outputs, axis=0).sum(axis=-1)
        return SHARPNESS * np.stack([-cosines, cosines], axis=-1)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Return a recipe of the new kind, which is registered for the test."""
    kind = SeparatePairClassification()
    monkeypatch.setitem(KINDS, (kind.kind, kind.inputs, kind.objective), kind)
    monkeypatch.setitem(TASKS, SeparatePairClassification, SeparatePairTask)
    document = small_recipe("klue-sts").model_dump() | {
        "kind": kind.kind,
        "labels": ("different", "alike"),
        "score_range": None,
        "similar_at": None,
        "behaviour": {},
    }
    document["data"]["label"] = "labels.binary-label"
    document["gate"] |= {"floors": {"accuracy": 0.01, "f1": 1e-9}, "behaviour": {}, "margin": 0.9}
    return Recipe.model_validate(document)


def test_new_kind_passes_every_stage_up_to_its_release(recipe: Recipe, tmp_path: Path) -> None:
    road = open_road(recipe, tmp_path, train=300, test=100)
    assert {"input_ids", "input_ids_pair"} <= set(pd.read_parquet(road.tokenized.path / "train.parquet"))
    assert road.trained.manifest.figures["calibration"] is None
    assert set(road.evaluated.manifest.figures["test"]) == {"accuracy", "f1"}
    assert (road.evaluated.path / "reliability.png").is_file()
    assert read_decision(road.decided).promote
    card = read_card(road.released)
    assert isinstance(card.task, SeparatePairClassification)
    texts = pd.DataFrame([item.texts for item in card.golden], columns=recipe.text_columns)
    wanted = load_trained(recipe, road.trained).answer(texts)
    found = np.array([item.expected for item in card.golden])
    assert np.abs(found - wanted).max() <= card.golden_tolerance
    assert card.task.result(card, [0.25, 0.75])["label"] == "alike"
