"""ONNX graphs: trace from torch, fuse for BERT, convert to fp16, and remove padding."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
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
    keep_first_row,
    part_attention,
)
from pipeline.export.quiet import quiet
from pipeline.models.network import Network
from pipeline.tasks.trained import Trained

OPSET = 18
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FLOAT = onnx.TensorProto.FLOAT


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
    with quiet():
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
                f"ONNX Runtime fused {counts.get(operator, 0)} of {wanted} {operator} operators: it does not support "
                "this architecture; use another base model"
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


def to_packed(source: Path, target: Path) -> None:
    """Write the padding-free graph: rows are concatenated from the embeddings to the last layer.

    Its operators exist only for CUDA. Raises ParityError if an attention could not be converted.
    """
    graph = onnx.load(str(source))
    # The packed form of Attention has a fast kernel only on older GPUs.
    part_attention(graph)
    model = OnnxModel(graph)
    with quiet():
        PackingMode(model).convert()
    model.save_model_to_file(str(target))
    kinds = [item.op_type for item in model.model.graph.node]
    if "MultiHeadAttention" in kinds or "RestorePadding" not in kinds:
        raise ParityError(
            "ONNX Runtime left an attention that computes padding in the padding-free graph: it does not support this "
            "architecture; use another base model"
        )


def to_fp16(source: Path, target: Path) -> None:
    """Convert weights and arithmetic to fp16; inputs and outputs keep their types."""
    model = OnnxModel(onnx.load(str(source)))
    with quiet():
        model.convert_float_to_float16(keep_io_types=True)
        model.save_model_to_file(str(target))
