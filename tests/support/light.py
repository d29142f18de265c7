"""Models for tests that need a release but no BERT: a mean of token values, created without torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.tiny_releases import Head, TinyModel, classifies, make_tokenizer

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def build_light_model(directory: Path, head: Head, seed: int) -> TinyModel:
    """Create a model determined by `seed`. Its answers do not depend on the rest of the batch."""
    directory.mkdir(parents=True)
    wordpiece = make_tokenizer()
    wordpiece.save(str(directory / "tokenizer.json"))
    width = 8 if head == "bi-encoder" else 2 if classifies(head) else 1
    table = np.random.default_rng(seed).normal(scale=3.0, size=(wordpiece.get_vocab_size(), width))
    # Scores around the middle of 0 to 5.
    table = table if classifies(head) or head == "bi-encoder" else 2.5 + table / 6
    onnx.save(_mean_of(table.astype(np.float32), unit=head == "bi-encoder"), directory / "model.int8.onnx")
    shutil.copy(directory / "model.int8.onnx", directory / "model.fp16.onnx")
    return TinyModel(directory, head)


def _mean_of(table: np.ndarray[tuple[int, int], np.dtype[np.float32]], *, unit: bool) -> onnx.ModelProto:
    """Return a graph that averages the rows of `table` (tokens, width) of all tokens; a unit vector if `unit`."""
    output = "vectors" if unit else "logits"
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["rows", "weights"], ["read"]),
        helper.make_node("ReduceSum", ["read", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "middle"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean" if unit else output]),
    ]
    if unit:
        nodes.append(helper.make_node("LpNormalization", ["mean"], [output], axis=-1, p=2))
    constants = {"table": table, "last": np.array([2]), "middle": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "length"]) for name in INPUTS],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", table.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
