"""Every supported shape of base model with every head: its graphs are fused and answer like torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from pipeline.errors import BaseModelError
from pipeline.export.onnx_graph import fuse, simplify, to_cpu, to_fp16, trace
from pipeline.export.onnx_session import feeds_of, open_session, run_onnx
from pipeline.export.quantization import to_int8
from pipeline.models.base_model import check_base
from pipeline.models.build import save_trained
from pipeline.models.row_encoder import Encoder
from pipeline.models.tokenizer import load_tokenizer
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.registry import task_of
from pipeline.tasks.trained import Trained
from tests.support.small_pipeline import save_base
from tests.support.tiny_releases import SENTENCES

pytestmark = [pytest.mark.torch, pytest.mark.cpu]

LAYERS = 2
SHAPES: dict[str, dict[str, Any]] = {
    "bert": {},
    # The small KcELECTRA models have narrow embeddings.
    "electra": {"embedding_size": 16},
    # As in klue/roberta-base: one token type, and positions that begin after that of padding.
    "roberta": {"type_vocab_size": 1, "pad_token_id": 0},
}
HEADS = {
    "classifier": ("nsmc", None),
    "cross-encoder": ("klue-sts", "cross-encoder"),
    "bi-encoder": ("klue-sts", "bi-encoder"),
}


def base_of(directory: Path, kind: str) -> Path:
    shape = SHAPES[kind] | {"num_hidden_layers": LAYERS, "initializer_range": 0.3}
    return save_base(directory, list(SENTENCES), kind=kind, **shape)


def model_of(base: Path, head: str, pooling: str) -> Trained:
    name, objective = HEADS[head]
    chosen = {"model.base": str(base), "model.objective": objective, "model.pooling": pooling, "model.max_length": 48}
    mixed = {"train.left_out": 0.0, "train.strangers": 0.0, "train.joined": 0.0}
    recipe = load_recipe(name, "embedded", overrides=chosen | mixed)
    tokenizer = load_tokenizer(base)
    torch.manual_seed(1)
    network = task_of(recipe).build(base, tokenizer)
    module = network.module.eval()
    with torch.no_grad():
        # Position and type embeddings as large as those of words, so that losing them makes a difference.
        for name, parameter in module.named_parameters():
            if "position_embeddings" in name or "token_type" in name:
                parameter.normal_(0, 0.3)
    line = ScoreLine(slope=2.5, intercept=2.5) if objective == "bi-encoder" else None
    model = Trained(recipe, network, tokenizer, line, None, torch.device("cpu"))
    if head == "cross-encoder":
        # Scores around the middle of the range: outside, they would be clipped and equal.
        (bias,) = [
            item for name, item in module.named_parameters() if name.endswith(("out_proj.bias", "classifier.bias"))
        ]
        rows = Encoder(tokenizer, 48, recipe.task.encodings).encode(rows_of(model)).rows
        bias.data += 2.5 - float(model.raw_answers(rows).mean())
    return model


def rows_of(model: Trained) -> pd.DataFrame:
    rows = pd.DataFrame({"text": [*SENTENCES, SENTENCES[-1] * 3]})
    return rows if model.recipe.inputs == "text" else rows.assign(text_pair=[*SENTENCES[::-1], "비"])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_graph_is_fused_and_answers_as_torch_does(kind: str, head: str, pooling: str, tmp_path: Path) -> None:
    model = model_of(base_of(tmp_path / "base", kind), head, pooling)
    rows = rows_of(model)
    wanted = model.answer(rows)
    assert wanted.std() > 0.01
    fused = tmp_path / "fused.onnx"
    trace(model, fused)
    # It raises if an embedding, one attention per layer or two norms per layer are missing.
    fuse(model.network.transformer, fused, fused)
    simplify(fused, fused, with_types=head == "cross-encoder", first_row=pooling == "cls")
    to_cpu(fused, tmp_path / "cpu.onnx")
    to_int8(tmp_path / "cpu.onnx", tmp_path / "int8.onnx", feeds_of(model, rows))
    to_fp16(fused, tmp_path / "fp16.onnx")
    scale = 5.0 if model.recipe.kind == "regression" else 1.0
    for name, bound in (("fused", 1e-4), ("cpu", 1e-4), ("fp16", 0.02), ("int8", 0.2)):
        # Some rows are padded.
        found = run_onnx(model, rows, open_session(tmp_path / f"{name}.onnx"), 4)
        assert np.abs(found - wanted).max() <= bound * scale, name
    # Tracing leaves the trained model unchanged.
    np.testing.assert_allclose(model.answer(rows), wanted, atol=1e-4)
    kinds = [item.op_type for item in onnx.load(tmp_path / "cpu.onnx").graph.node]
    assert kinds.count("InstanceNormalization") == 2 * LAYERS + 1


def test_roberta_with_two_token_types_is_saved(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "roberta")
    model = model_of(base, "cross-encoder", "cls")
    types: Any = model.network.transformer.base_model.embeddings.token_type_embeddings
    assert types.weight.shape[0] == 2
    assert types.weight.requires_grad
    fresh: Any = model.task.build(base, model.tokenizer).transformer.base_model.embeddings
    # Both types are copies of the original one until training changes them.
    assert torch.equal(*fresh.token_type_embeddings.weight.data)
    save_trained(model.network.transformer, model.tokenizer, tmp_path / "saved")
    again: Any = model.task.build(tmp_path / "saved", model.tokenizer).transformer.base_model
    assert torch.equal(again.embeddings.token_type_embeddings.weight, types.weight)
    encoder = Encoder(model.tokenizer, 48, model.recipe.task.encodings)
    assert {int(kind) for kinds in encoder.encode(rows_of(model)).rows["token_type_ids"] for kind in kinds} == {0, 1}


def test_roberta_max_length_excludes_padding_positions(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "roberta")
    check_base(base, max_length=63, tokens=10)
    with pytest.raises(BaseModelError, match="takes at most 63 tokens"):
        check_base(base, max_length=64, tokens=10)
