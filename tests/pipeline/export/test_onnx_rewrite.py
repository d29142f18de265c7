"""Rewrites of a fused graph: other operators, less work, the same outputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from pipeline.export.onnx_graph import fuse, simplify, to_cpu, trace
from pipeline.export.onnx_rewrite import Graph, gelus_of_layers, part_attention, part_outliers
from pipeline.export.onnx_session import open_session
from pipeline.export.quantization import to_int8
from pipeline.models.network import classifier_network
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.trained import Trained

pytestmark = [pytest.mark.torch, pytest.mark.cpu]

SIZE, PLACES = 200, 24


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the fused graph of three random layers, with norms other than 1 and biases other than 0."""
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=SIZE,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=PLACES,
        num_labels=3,
        initializer_range=0.2,
    )
    module = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    directory = tmp_path_factory.mktemp("graph")
    tokenizer: Any = None
    network = classifier_network(module, "cls")
    model = Trained(load_recipe("nsmc", "embedded"), network, tokenizer, None, None, torch.device("cpu"))
    trace(model, directory / "traced.onnx")
    fuse(module, directory / "traced.onnx", directory / "fused.onnx")
    return directory / "fused.onnx"


def batch(*, types: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Return padded rows of all lengths."""
    generator = np.random.default_rng(3)
    lengths = np.array([[PLACES], [1], [7], [2], [16]])
    mask = (np.arange(PLACES) < lengths).astype(np.int32)
    ids = generator.integers(5, SIZE, mask.shape).astype(np.int32) * mask
    kinds = ((np.arange(PLACES) > 4) & (mask > 0)).astype(np.int32)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds if types else np.zeros_like(ids)}


def answers(file: Path, inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    session = open_session(file)
    wanted = {item.name for item in session.get_inputs()}
    return np.asarray(session.run(None, {name: value for name, value in inputs.items() if name in wanted})[0])


def operators(file: Path) -> list[str]:
    return [item.op_type for item in onnx.load(file).graph.node]


@pytest.mark.parametrize("first_row", [False, True])
@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("cpu", [False, True])
def test_answers_stay_what_they_are(fused: Path, tmp_path: Path, first_row: bool, types: bool, cpu: bool) -> None:
    wanted = answers(fused, batch(types=types))
    assert wanted.std() > 0.1
    file = tmp_path / "changed.onnx"
    shutil.copy(fused, file)
    simplify(file, file, with_types=types, first_row=first_row)
    if cpu:
        to_cpu(file, file)
    onnx.checker.check_model(onnx.load(file), full_check=False)
    np.testing.assert_allclose(answers(file, batch(types=types)), wanted, atol=2e-5)
    # A batch of one row and one token.
    alone = {name: value[1:2, :1] for name, value in batch(types=types).items()}
    np.testing.assert_allclose(answers(file, alone), wanted[1:2], atol=2e-5)


def test_last_layer_computes_only_its_first_row(fused: Path, tmp_path: Path) -> None:
    file = tmp_path / "changed.onnx"
    shutil.copy(fused, file)
    simplify(file, file, with_types=False, first_row=True)
    graph = onnx.load(file).graph
    (row,) = [item for item in graph.node if item.op_type == "MultiHeadAttention"]
    assert [item.op_type for item in graph.node].count("Attention") == 2
    last = [item.output[0] for item in graph.node if item.op_type == "SkipLayerNormalization"][-1]
    for name in (row.output[0], last):
        del graph.output[:]
        graph.output.extend([onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)])
        seen = tmp_path / "seen.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=onnx.load(file).opset_import, ir_version=10), seen)
        assert answers(seen, batch(types=False)).shape == (5, 1, 48)


def test_the_cpu_gets_no_operator_that_is_slow_there(fused: Path, tmp_path: Path) -> None:
    to_cpu(fused, tmp_path / "cpu.onnx")
    before, after = operators(fused), operators(tmp_path / "cpu.onnx")
    slow = {"EmbedLayerNormalization", "SkipLayerNormalization", "BiasGelu", "Attention"}
    assert slow <= set(before)
    assert not slow & set(after)
    assert after.count("InstanceNormalization") == 1 + before.count("SkipLayerNormalization")


def test_types_that_are_all_alike_are_no_input(fused: Path, tmp_path: Path) -> None:
    file = tmp_path / "changed.onnx"
    shutil.copy(fused, file)
    simplify(file, file, with_types=False, first_row=False)
    assert [item.name for item in open_session(file).get_inputs()] == ["input_ids", "attention_mask"]
    names = [item.name for item in onnx.load(file).graph.initializer]
    assert not [name for name in names if "token_type" in name]


def test_attention_in_parts_answers_the_same(fused: Path, tmp_path: Path) -> None:
    model = onnx.load(fused)
    part_attention(model)
    onnx.save(model, tmp_path / "parted.onnx")
    assert operators(tmp_path / "parted.onnx").count("MultiHeadAttention") == 3
    inputs = batch(types=True)
    np.testing.assert_allclose(answers(tmp_path / "parted.onnx", inputs), answers(fused, inputs), atol=2e-5)


# --- outliers ---


@pytest.fixture
def reaching(fused: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return the CPU graph, and a variant with two outlier channels in a layer."""
    plain, far = tmp_path / "plain.onnx", tmp_path / "far.onnx"
    to_cpu(fused, plain)
    model = onnx.load(plain)
    graph = Graph(model)
    gelu = next(item for item in graph.proto.node if item.op_type == "Gelu")
    makers = {item.output[0]: item for item in graph.proto.node}
    add = makers[gelu.input[0]]
    before = next(makers[name] for name in add.input if name in makers)
    bias = next(name for name in add.input if name not in makers)
    after = next(item for item in graph.proto.node if gelu.output[0] in item.input)
    # GELU passes large values unchanged, so dividing the weights of the next product limits their effect.
    lift, weights = graph.array(bias).copy(), graph.array(after.input[1]).copy()
    lift[[3, 77]] += 300
    weights[[3, 77]] /= 300
    add.input[list(add.input).index(bias)] = graph.constant("bias/far", lift, np.float32)
    after.input[1] = graph.constant("weights/far", weights, np.float32)
    assert before.op_type == "MatMul"
    onnx.save(model, far)
    return plain, far


def test_outlier_channels_get_a_separate_product(reaching: tuple[Path, Path], tmp_path: Path) -> None:
    _, far = reaching
    model = onnx.load(far)
    gelu = next(item for item in model.graph.node if item.op_type == "Gelu")
    peaks = np.ones(96)
    peaks[[3, 77]] = 300
    (name,) = part_outliers(model, {gelu.output[0]: peaks})
    onnx.save(model, tmp_path / "parted.onnx")
    inputs = batch(types=True)
    np.testing.assert_allclose(answers(tmp_path / "parted.onnx", inputs), answers(far, inputs), atol=2e-4)
    (apart,) = [item for item in model.graph.node if item.name == name]
    (weights,) = [item for item in model.graph.initializer if item.name == apart.input[1]]
    assert list(weights.dims) == [6, 48], "a sixteenth of 96 channels"


def test_int8_sets_them_apart_by_itself(reaching: tuple[Path, Path], tmp_path: Path) -> None:
    inputs = batch(types=True)
    off, made = {}, {}
    for name, file, feeds in (
        ("plain", reaching[0], [inputs]),
        ("far", reaching[1], [inputs]),
        ("unseen", reaching[1], []),
    ):
        to_int8(file, target := tmp_path / f"{name}.int8.onnx", feeds)
        off[name] = np.abs(answers(target, inputs) - answers(file, inputs)).mean()
        made[name] = operators(target)
    # Without outliers, nothing is separated.
    assert made["plain"].count("MatMulInteger") == operators(reaching[0]).count("MatMul")
    assert made["far"].count("MatMulInteger") == made["plain"].count("MatMulInteger")
    assert made["far"].count("MatMul") == made["plain"].count("MatMul") + 1
    assert off["far"] < 2 * off["plain"] < off["unseen"]


def test_a_head_with_a_gelu_is_left_alone() -> None:
    """Return a head like ELECTRA's: a GELU between two Gemm, which `part_outliers` does not support."""
    node = onnx.helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["product"]),
        node("Add", ["product", "b"], ["biased"]),
        node("Gelu", ["biased"], ["inside"], domain="com.microsoft"),
        node("MatMul", ["inside", "v"], ["out"]),
        node("Gemm", ["out", "u"], ["dense"]),
        node("Gelu", ["dense"], ["head"], domain="com.microsoft"),
        node("Gemm", ["head", "t"], ["logits"]),
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "both", [], []))
    assert gelus_of_layers(model) == ["inside"]
