"""ONNX graphs: trace from torch, fuse for BERT, quantize, and remove padding."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.convert_to_packing_mode import PackingMode
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.bert.modeling_bert import BertEmbeddings

from pipeline.errors import ParityError
from pipeline.export.onnx_rewrite import (
    fold_types,
    for_cpu,
    gelus_of_layers,
    keep_first_row,
    part_attention,
    part_outliers,
    usual_channels,
)
from pipeline.metrics import Numbers
from pipeline.models.network import Network
from pipeline.tasks.trained import Trained

OPSET = 18
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FLOAT = onnx.TensorProto.FLOAT
#: Steps of 8 bits, and the limit of the quantization noise as a share of the power in the usual channels of a GELU.
#: In `mini`'s four layers the share is 0.09 to 0.2, 0.02 to 0.03, 0.6 to 1.2 and 0.001.
STEPS, NOISE = 255, 0.05

#: Inputs of one session call by name, (batch, length) each.


class Exported(nn.Module):
    """Wrapper for tracing: positional inputs and one output."""

    def __init__(self, network: Network) -> None:
        """Wrap the module of `network`."""
        super().__init__()
        self.module = network.module
        self._read = network.read

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the network's output: logits (batch, labels) or vectors (batch, hidden)."""
        return self._read(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


def trace(model: Trained, file: Path) -> None:
    """Write the graph of `model` with dynamic batch and length."""
    network = model.network
    # The fuser recognizes only eager attention.
    network.transformer.set_attn_implementation("eager")
    # Ids, mask and types; type 0 is the only one that every model has.
    example = tuple(torch.full((2, 8), value) for value in (1, 1, 0))
    with warnings.catch_warnings(), _plain_places(network.transformer):
        # The tracing exporter is deprecated, but only its graphs fuse. Its warnings about constants are harmless.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported(network).eval(),
            example,
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=[network.output],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in INPUTS} | {network.output: {0: "batch"}},
        )


@contextmanager
def _plain_places(transformer: PreTrainedModel) -> Iterator[None]:
    """Number the positions of a RoBERTa as BERT does, with a shifted position table: the fuser recognizes only that.

    RoBERTa numbers only tokens that are not padding. Padding is on the right, so no other token is affected.
    """
    if transformer.config.model_type != "roberta":
        yield
        return
    base: Any = transformer.base_model
    before, config = base.embeddings, copy.copy(transformer.config)
    first = before.padding_idx + 1
    config.max_position_embeddings -= first
    after = BertEmbeddings(config).eval()  # type: ignore[no-untyped-call]
    after.load_state_dict(
        before.state_dict() | {"position_embeddings.weight": before.position_embeddings.weight[first:]}
    )
    base.embeddings = after
    try:
        yield
    finally:
        base.embeddings = before


def fuse(transformer: PreTrainedModel, source: Path, target: Path) -> None:
    """Fuse embeddings, attention, normalisation and GELU. Raises ParityError if an operator could not be fused."""
    config: Any = transformer.config
    options = FusionOptions("bert")
    # Use sequence lengths as mask: CUDA's fast kernels require it, and padding is on the right.
    options.use_raw_attention_mask(False)
    with _quiet():
        fused = optimizer.optimize_model(
            str(source),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            optimization_options=options,
            opt_level=0,
        )
        fused.change_graph_inputs_to_int32()
    counts = fused.get_fused_operator_statistics()
    layers = config.num_hidden_layers
    for operator, wanted in {
        "EmbedLayerNormalization": 1,
        "Attention": layers,
        "SkipLayerNormalization": 2 * layers,
    }.items():
        if counts.get(operator, 0) != wanted:
            raise ParityError(
                f"the exported graph has {counts.get(operator, 0)} {operator}, {wanted} expected: not fused"
            )
    fused.save_model_to_file(str(target))


def simplify(source: Path, target: Path, *, with_types: bool, first_row: bool) -> None:
    """Remove unused computation from a fused graph: constant token types, and rows that the head does not read."""
    model = onnx.load(str(source))
    if not with_types:
        fold_types(model)
    if first_row:
        keep_first_row(model)
    onnx.save(model, str(target))


def to_cpu(source: Path, target: Path) -> None:
    """Write the same graph in fp32, with operators that are fast in ONNX Runtime on a CPU."""
    model = onnx.load(str(source))
    for_cpu(model)
    onnx.save(model, str(target))


def to_int8(source: Path, target: Path, feeds: Iterable[Mapping[str, Numbers]]) -> None:
    """Quantize embeddings and layer weights to int8, the latter per channel; activations are quantized dynamically.

    `feeds` are representative inputs that show for which activations 8 bits are too few.
    """
    model = onnx.load(str(source))
    # Exclude the head, whose time is negligible. The quantizer first converts each Gemm to a MatMul of this name.
    exact = [f"{item.name}_MatMul" for item in model.graph.node if item.op_type == "Gemm"]
    exact += part_outliers(model, _coarse(model, feeds))
    with _quiet():
        quantize_dynamic(
            model,
            str(target),
            op_types_to_quantize=["MatMul", "Gather"],
            nodes_to_exclude=exact,
            per_channel=True,
            # Signed: unsigned weights are 2.3 times slower on AVX-512 VNNI.
            weight_type=QuantType.QInt8,
            # Seven bits: CPUs without VNNI add two products in 16 bits, which saturates with eight-bit weights.
            reduce_range=True,
            extra_options={"DefaultTensorType": FLOAT},
        )


def _coarse(model: onnx.ModelProto, feeds: Iterable[Mapping[str, Numbers]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return peak absolute values (channels,) by name, for GELU outputs for which int8 is too coarse."""
    names = gelus_of_layers(model)
    watched = copy.deepcopy(model)
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    reach, power, noise = ({name: np.zeros(1) for name in names} for _ in range(3))
    for feed in feeds:
        for name, values in zip(names, session.run(names, dict(feed)), strict=True):
            states, mask = np.asarray(values), np.asarray(feed["attention_mask"]) > 0
            # Skip padding, which hardly occurs when serving. A pruned last layer contains only [CLS].
            rows = states[mask] if states.shape[:2] == mask.shape else states.reshape(-1, states.shape[-1])
            reach[name] = np.maximum(reach[name], np.abs(rows).max(axis=0))
            power[name] = power[name] + np.square(rows).sum(axis=0)
            # The mean squared error of rounding to steps is the squared step divided by 12.
            noise[name] = noise[name] + ((rows.max() - rows.min()) / STEPS) ** 2 / 12 * len(rows)
    found = {}
    for name, peaks in reach.items():
        usual = np.argsort(peaks)[: usual_channels(len(peaks))]
        if (noise[name] * len(usual)).item() > NOISE * power[name][usual].sum():
            found[name] = peaks
    return found


def to_packed(source: Path, target: Path) -> None:
    """Write the padding-free graph: rows are concatenated from the embeddings to the last layer.

    Its operators exist only for CUDA. Raises ParityError if an attention could not be converted.
    """
    graph = onnx.load(str(source))
    # The packed form of Attention has a fast kernel only on older GPUs.
    part_attention(graph)
    model = OnnxModel(graph)
    with _quiet():
        PackingMode(model).convert()
    model.save_model_to_file(str(target))
    kinds = [item.op_type for item in model.model.graph.node]
    if "MultiHeadAttention" in kinds or "RestorePadding" not in kinds:
        raise ParityError("the padding-free graph still has an attention that computes padding")


def to_fp16(source: Path, target: Path) -> None:
    """Convert weights and arithmetic to fp16; inputs and outputs keep their types."""
    model = OnnxModel(onnx.load(str(source)))
    with _quiet():
        model.convert_float_to_float16(keep_io_types=True)
        model.save_model_to_file(str(target))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's tools from logging a line per node to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
