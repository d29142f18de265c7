"""Quantization of an ONNX graph to 8-bit integers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from pipeline.export.onnx_rewrite import gelus_of_layers, part_outliers, usual_channels
from pipeline.export.quiet import quiet
from pipeline.metrics.arrays import Numbers

FLOAT = onnx.TensorProto.FLOAT
#: Steps of 8 bits, and the limit of the quantization noise as a share of the power in the usual channels of a GELU.
#: In `mini`'s four layers the share is 0.09 to 0.2, 0.02 to 0.03, 0.6 to 1.2 and 0.001.
STEPS, NOISE = 255, 0.05


def to_int8(source: Path, target: Path, feeds: Iterable[Mapping[str, Numbers]]) -> None:
    """Quantize embeddings and layer weights to int8, the latter per channel; activations are quantized dynamically.

    `feeds` are representative inputs that show for which activations 8 bits are too few.
    """
    model = onnx.load(str(source))
    # Exclude the head, whose time is negligible. The quantizer first converts each Gemm to a MatMul of this name.
    exact = [f"{item.name}_MatMul" for item in model.graph.node if item.op_type == "Gemm"]
    exact += part_outliers(model, _coarse(model, feeds))
    with quiet():
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
    """Return peak absolute values (channels,), by name, of the GELU outputs for which int8 is too coarse."""
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
