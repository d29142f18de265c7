"""The full profile end to end, on a base model of BERT-base's shape with random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.export import onnx_graph
from pipeline.job import Job, day_of, open_store
from pipeline.recipes.loading import load_recipe
from pipeline.sample import write_sample
from pipeline.settings import load_settings
from pipeline.store.releases import read_card
from pipeline.tasks.trained import load_trained
from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import check_golden, engine_answers
from tests.support.small_pipeline import Road, sample_rows, save_base

pytestmark = pytest.mark.models

ANY = {"changed_labels": 1.0, "metric_change": 1.0}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return a directory that is deleted after the test, because pytest would keep gigabytes of weights."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_model_of_bert_base_shape_passes_all_stages(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings().model_copy(update={"home": place / "home"})
    plain = load_recipe("klue-sts", "full")
    rows = sample_rows(plain, write_sample(place / "sample"), train=64, test=24)
    base = save_base(
        place / "base",
        [*rows["train"]["text"], *rows["train"]["text_pair"]],
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=512,
        # Larger than usual: parity is meaningful only if answers differ between pairs.
        initializer_range=0.05,
    )
    recipe = load_recipe(
        "klue-sts",
        "full",
        overrides={
            "model.base": str(base),
            "model.max_length": 32,
            "train.epochs": 1,
            "data.min_train_rows": 1,
            "data.min_test_rows": 1,
            "data.validation_share": 0.15,
            "data.gate_share": 0.15,
            "export.sentences": 100,
            # Random weights have no quality for the bounds to protect.
            "export.int8": ANY,
            "export.fp16": ANY,
            "export.latency_ms": 60_000.0,
        },
    )
    assert recipe.model.objective == plain.model.objective == "cross-encoder"
    road = Road(Job(recipe, settings, open_store(settings), run="full", cutoff=day_of(settings)), rows)
    fused = counted(monkeypatch)
    release = road.released
    assert fused == [{"Attention": 12, "EmbedLayerNormalization": 1, "SkipLayerNormalization": 24}]
    figures = road.trained.manifest.figures
    assert figures["base"] == road.tokenized.manifest.figures["base"]
    assert figures["base"]["base"] == str(base)
    assert figures["parameters"] > 85_000_000
    config = json.loads((road.trained.path / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]) == (12, 768, 3072)
    card = read_card(release)
    assert not card.sample
    engine = Engine(release.path, EngineOptions(threads=1, device="cpu"))
    check_golden(engine.card, engine_answers(engine))
    reference = load_trained(recipe, road.trained).answer(rows["test"])
    answers = engine.score(list(rows["test"][["text", "text_pair"]].itertuples(index=False, name=None)))
    assert np.abs(answers - reference).mean() < 0.5
    assert 0 < card.variants["cuda"][0].parity["largest_difference"] < 0.1


def counted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Record the operators that the real fuser fuses."""
    found: list[dict[str, int]] = []
    optimize = onnx_graph.optimizer.optimize_model

    def watched(*arguments: Any, **named: Any) -> Any:
        model = optimize(*arguments, **named)
        statistics = model.get_fused_operator_statistics()
        wanted = ("Attention", "EmbedLayerNormalization", "SkipLayerNormalization")
        found.append({operator: statistics[operator] for operator in wanted})
        return model

    monkeypatch.setattr(onnx_graph.optimizer, "optimize_model", watched)
    return found
