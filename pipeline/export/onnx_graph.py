"""ONNX graphs: traced from torch, fused for BERT, and made small."""

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
from pipeline.models.build import transformer_of
from pipeline.models.heads import BiEncoder
from pipeline.models.trained import Trained

OPSET = 18
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FLOAT = onnx.TensorProto.FLOAT
#: The steps of 8 bits, and the noise by rounding to them, as a share of what the usual channels of a GELU carry, above
#: which they are too few. In `mini`'s four layers it is 0.09 to 0.2, 0.02 to 0.03, 0.6 to 1.2 and 0.001.
STEPS, NOISE = 255, 0.05

#: Inputs of one call of a session, by name, (batch, length) each.
Feed = Mapping[str, np.ndarray[Any, Any]]


class Exported(nn.Module):
    """What is traced: positional inputs, one output."""

    def __init__(self, module: nn.Module) -> None:
        """`module` is a classifier or a bi-encoder."""
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """`logits` (batch, labels), or `vectors` (batch, hidden) of a bi-encoder."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        if isinstance(self.module, BiEncoder):
            return self.module.vectors(**inputs)
        logits: Tensor = self.module(**inputs)["logits"]
        return logits


def trace(model: Trained, file: Path) -> None:
    """Write the graph of `model` with dynamic batch and length."""
    # Only eager attention is a pattern that the fuser knows.
    transformer_of(model.module).set_attn_implementation("eager")
    # Of ids, mask and types; a model may have but one type, 0.
    example = tuple(torch.full((2, 8), value) for value in (1, 1, 0))
    output = "vectors" if isinstance(model.module, BiEncoder) else "logits"
    with warnings.catch_warnings(), _plain_places(transformer_of(model.module)):
        # The tracing exporter is deprecated, and the one whose graphs fuse; both warn of constants that are right.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported(model.module).eval(),
            example,
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=[output],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in INPUTS} | {output: {0: "batch"}},
        )


@contextmanager
def _plain_places(transformer: PreTrainedModel) -> Iterator[None]:
    """Number the tokens of a RoBERTa as BERT does, from a table that begins later: the fuser knows only that.

    RoBERTa counts the tokens that are no padding. Padding stands on the right, where no place is ever read.
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


def fuse(module: nn.Module, source: Path, target: Path) -> None:
    """Fuse embeddings, attention, normalisation and GELU. Raises ParityError where the graph is not as expected."""
    config = transformer_of(module).config
    options = FusionOptions("bert")
    # A mask of lengths instead of a mask of places: CUDA's fast kernels want it, and padding is on the right.
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
    """Leave out of a fused graph what is never used: types that are all alike, rows that no head reads."""
    model = onnx.load(str(source))
    if not with_types:
        fold_types(model)
    if first_row:
        keep_first_row(model)
    onnx.save(model, str(target))


def to_cpu(source: Path, target: Path) -> None:
    """The same graph, in fp32, of operators that ONNX Runtime computes fast on a CPU."""
    model = onnx.load(str(source))
    for_cpu(model)
    onnx.save(model, str(target))


def to_int8(source: Path, target: Path, feeds: Iterable[Feed]) -> None:
    """Quantize the weights of words and layers, the latter per channel; activations are scaled as they come.

    `feeds` are inputs of the graph as there will be, by which it is seen where 8 bits are too few.
    """
    model = onnx.load(str(source))
    # Not the head's, which take no time. The quantizer first makes a MatMul of each Gemm, by this name.
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
            # Seven bits: with eight, processors without VNNI add two products in 16 bits and cut off what is above.
            reduce_range=True,
            extra_options={"DefaultTensorType": FLOAT},
        )


def _coarse(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, np.ndarray[Any, Any]]:
    """The farthest value of each channel, (channels,), of each GELU's output whose int8 would be too coarse."""
    names = gelus_of_layers(model)
    watched = copy.deepcopy(model)
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    reach, power, noise = ({name: np.zeros(1) for name in names} for _ in range(3))
    for feed in feeds:
        for name, values in zip(names, session.run(names, dict(feed)), strict=True):
            states, mask = np.asarray(values), np.asarray(feed["attention_mask"]) > 0
            # Of padding there is next to none where it is served; of a last layer that is cut, only [CLS] is there.
            rows = states[mask] if states.shape[:2] == mask.shape else states.reshape(-1, states.shape[-1])
            reach[name] = np.maximum(reach[name], np.abs(rows).max(axis=0))
            power[name] = power[name] + np.square(rows).sum(axis=0)
            # What is rounded to steps is off by their square over twelve, on average.
            noise[name] = noise[name] + ((rows.max() - rows.min()) / STEPS) ** 2 / 12 * len(rows)
    found = {}
    for name, peaks in reach.items():
        usual = np.argsort(peaks)[: usual_channels(len(peaks))]
        if (noise[name] * len(usual)).item() > NOISE * power[name][usual].sum():
            found[name] = peaks
    return found


def to_packed(source: Path, target: Path) -> None:
    """The same graph without the padding: its rows lie one after the other from the embeddings to the last layer.

    Only CUDA has the operators. Raises ParityError where an attention is left as it was.
    """
    graph = onnx.load(str(source))
    # Without padding, Attention has a fast kernel only on older GPUs.
    part_attention(graph)
    model = OnnxModel(graph)
    with _quiet():
        PackingMode(model).convert()
    model.save_model_to_file(str(target))
    kinds = [item.op_type for item in model.model.graph.node]
    if "MultiHeadAttention" in kinds or "RestorePadding" not in kinds:
        raise ParityError("the graph without padding still has an attention that computes it")


def to_fp16(source: Path, target: Path) -> None:
    """Convert weights and arithmetic to fp16; inputs and outputs keep their types."""
    model = OnnxModel(onnx.load(str(source)))
    with _quiet():
        model.convert_float_to_float16(keep_io_types=True)
        model.save_model_to_file(str(target))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's tools from writing a line a node to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
