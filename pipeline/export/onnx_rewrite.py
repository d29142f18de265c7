"""Rewrites of a fused graph that preserve its results; each changes a model in place.

They expect BERT's graph from `pipeline.export.onnx_graph.fuse`: EmbedLayerNormalization, then for each layer
Attention, SkipLayerNormalization, BiasGelu and SkipLayerNormalization, then a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

CONTRIB = "com.microsoft"
#: Share of channels that `part_outliers` separates.
OUTLIERS = 1 / 16


class Graph:
    """Editor for a model's graph: replaces nodes one by one and adds constants by name."""

    def __init__(self, model: ModelProto) -> None:
        """`model` is changed in place."""
        self.proto = model.graph
        self._constants = {item.name: item for item in model.graph.initializer}

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return the value of the constant `name`."""
        return numpy_helper.to_array(self._constants[name])

    def constant(self, name: str, value: Any, kind: type = np.int64) -> str:
        """Add `value` as the constant `name`, unless that exists, and return `name`."""
        if name not in self._constants:
            tensor = numpy_helper.from_array(np.ascontiguousarray(value, dtype=kind), name)
            self.proto.initializer.append(tensor)
            self._constants[name] = tensor
        return name

    def replace(self, write: Callable[[NodeProto], Sequence[NodeProto] | None]) -> None:
        """Replace each node by the result of `write`; None keeps the node."""
        nodes: list[NodeProto] = []
        for node in self.proto.node:
            written = write(node)
            nodes.extend([node] if written is None else written)
        del self.proto.node[:]
        self.proto.node.extend(nodes)

    def drop_unused(self) -> None:
        """Remove constants that no node reads."""
        read = {name for node in self.proto.node for name in node.input}
        kept = [item for item in self.proto.initializer if item.name in read]
        del self.proto.initializer[:]
        self.proto.initializer.extend(kept)


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], *, contrib: bool = False, **values: Any
) -> NodeProto:
    """Return a new node, named after its first output."""
    domain = CONTRIB if contrib else None
    return helper.make_node(kind, list(inputs), list(outputs), name=outputs[0] + "/node", domain=domain, **values)


def value_of(item: NodeProto, name: str) -> Any:
    """Return the value of the attribute `name` of a node."""
    return next(helper.get_attribute_value(found) for found in item.attribute if found.name == name)


def fold_types(model: ModelProto) -> None:
    """Add the embedding of token type 0 to the position embeddings, and remove the input `token_type_ids`."""
    graph = Graph(model)

    def write(item: NodeProto) -> None:
        if item.op_type == "EmbedLayerNormalization":
            places = graph.array(item.input[3]) + graph.array(item.input[4])[0]
            item.input[3] = graph.constant(item.input[3] + "/typed", places, np.float32)
            item.input[1] = item.input[4] = ""

    graph.replace(write)
    inputs = [item for item in graph.proto.input if item.name != "token_type_ids"]
    del graph.proto.input[:]
    graph.proto.input.extend(inputs)
    graph.drop_unused()


def keep_first_row(model: ModelProto) -> None:
    """Compute only [CLS] in the last layer, for a head that reads nothing else."""
    graph = Graph(model)
    last = [item for item in graph.proto.node if item.op_type == "Attention"][-1]
    states, first = last.input[0], last.input[0] + "/first"

    def write(item: NodeProto) -> Sequence[NodeProto] | None:
        if item is last:
            zero, one = graph.constant("rows/zero", [0]), graph.constant("rows/one", [1])
            return [node("Slice", [states, zero, one, one], [first]), *_attend(graph, last, first)]
        if item.op_type == "SkipLayerNormalization":
            # Only the last attention's residual connection reads these states.
            item.input[:2] = [first if name == states else name for name in item.input[:2]]
        return None

    graph.replace(write)
    graph.drop_unused()


def for_cpu(model: ModelProto) -> None:
    """Replace fused operators that have slow CPU kernels in ONNX Runtime (decision 18).

    Layer normalisation becomes InstanceNormalization with tokens as channels. BiasGelu becomes an Add, which belongs to
    the preceding product, and a Gelu. Queries, keys and values become one product of the whole batch.
    """
    graph = Graph(model)
    lengths = "tokens"
    shaped: dict[str, tuple[str, str, str]] = {}
    row = [item for item in graph.proto.node if item.op_type == "MultiHeadAttention"]
    narrow = _after(graph, row[0].output[0]) if row else set()

    def write(item: NodeProto) -> Sequence[NodeProto] | None:
        if item.op_type == "EmbedLayerNormalization":
            total, summed = _embedded(graph, item)
            mask = node("ReduceSum", [item.input[7], graph.constant("axis/one", [1])], [lengths], keepdims=0)
            return [mask, *summed, *_normalised(graph, item, total, item.input[5:7], shaped, narrow=False)]
        if item.op_type in ("Attention", "MultiHeadAttention"):
            place = 3 if item.op_type == "Attention" else 4
            item.input[place] = lengths
            return None if place == 4 else _attend(graph, item, item.input[0])
        if item.op_type == "SkipLayerNormalization":
            moved, skip, scale, shift, bias = item.input
            base = item.output[0]
            sums = [
                node("Add", [moved, bias], [f"{base}/biased"]),
                node("Add", [f"{base}/biased", skip], [f"{base}/sum"]),
            ]
            inside = item.output[0] in narrow
            return [*sums, *_normalised(graph, item, f"{base}/sum", (scale, shift), shaped, narrow=inside)]
        if item.op_type == "BiasGelu":
            biased = item.output[0] + "/biased"
            return [node("Add", item.input, [biased]), node("Gelu", [biased], item.output, contrib=True)]
        return None

    graph.replace(write)
    graph.drop_unused()


def part_attention(model: ModelProto) -> None:
    """Replace each Attention by three products and a MultiHeadAttention, which has a fast packed kernel on CUDA."""
    graph = Graph(model)

    def write(item: NodeProto) -> Sequence[NodeProto] | None:
        if item.op_type != "Attention":
            return None
        states, weight, bias, lengths = item.input
        out, weights = item.output[0], graph.array(weight)
        names = [f"{out}/{name}" for name in ("query", "key", "value")]
        products = [
            node("MatMul", [states, graph.constant(f"{name}/weight", part, np.float32)], [name])
            for name, part in zip(names, np.split(weights, 3, axis=1), strict=True)
        ]
        heads = value_of(item, "num_heads")
        return [*products, node("MultiHeadAttention", [*names, bias, lengths], [out], contrib=True, num_heads=heads)]

    graph.replace(write)
    graph.drop_unused()


def gelus_of_layers(model: ModelProto) -> list[str]:
    """Return the output names of GELUs between two matrix products, which excludes the GELU of a head."""
    makers = {name: item for item in model.graph.node for name in item.output}

    def maker(name: str) -> str:
        return makers[name].op_type if name in makers else ""

    read = {item.input[0] for item in model.graph.node if item.op_type == "MatMul"}
    return [
        item.output[0]
        for item in model.graph.node
        if item.op_type == "Gelu"
        and item.output[0] in read
        and maker(item.input[0]) == "Add"
        and any(maker(name) == "MatMul" for name in makers[item.input[0]].input)
    ]


def part_outliers(model: ModelProto, peaks: Mapping[str, np.ndarray[Any, Any]]) -> list[str]:
    """Compute the outlier channels in separate products, and return the names of those products.

    `peaks` has the peak absolute value of each channel, (channels,), by the name of the GELU output. With a common int8
    scale, a few channels with values a hundred times as large leave hardly a step for the others (LLM.int8(), Dettmers
    et al. 2022). The weights on both sides are sorted by the peaks of the channels and then split in two.
    """
    graph = Graph(model)
    makers = {name: item for item in graph.proto.node for name in item.output}
    found = []
    for output, reach in peaks.items():
        order = np.argsort(reach, kind="stable")
        biased = makers[makers[output].input[0]]
        before = next(makers[name] for name in biased.input if name in makers)
        place = next(index for index, name in enumerate(biased.input) if name not in makers)
        weight, bias = before.input[1], biased.input[place]
        before.input[1] = graph.constant(f"{weight}/sorted", graph.array(weight)[:, order], np.float32)
        biased.input[place] = graph.constant(f"{bias}/sorted", graph.array(bias)[order], np.float32)
        found.append((output, order))

    def write(item: NodeProto) -> Sequence[NodeProto] | None:
        order = next((order for output, order in found if item.op_type == "MatMul" and item.input[0] == output), None)
        if order is None:
            return None
        base, most = item.output[0], usual_channels(len(order))
        weights = graph.array(item.input[1])[order]
        names = [f"{base}/{name}" for name in ("usual", "outliers")]
        parts = graph.constant(f"{base}/parts", [most, len(order) - most])
        nodes = [node("Split", [item.input[0], parts], names, axis=-1)]
        for name, part in zip(names, np.split(weights, [most]), strict=True):
            by = graph.constant(f"{name}/weight", part, np.float32)
            nodes.append(node("MatMul", [name, by], [f"{name}/product"]))
        apart.append(nodes[-1].name)
        return [*nodes, node("Add", [f"{name}/product" for name in names], [base])]

    apart: list[str] = []
    graph.replace(write)
    graph.drop_unused()
    return apart


def usual_channels(channels: int) -> int:
    """Return how many of a GELU's channels are not outliers for `part_outliers`."""
    return channels - math.ceil(channels * OUTLIERS)


def _after(graph: Graph, name: str) -> set[str]:
    """Return `name` and the names of all values that depend on it."""
    found = {name}
    for item in graph.proto.node:
        if found & set(item.input):
            found |= set(item.output)
    return found


def _attend(graph: Graph, item: NodeProto, queries: str) -> list[NodeProto]:
    """Return nodes that compute the Attention `item`, (batch, rows of `queries`, hidden), with ordinary products."""
    states, weight, bias, lengths = item.input
    out, heads = item.output[0], value_of(item, "num_heads")
    weights, biases = graph.array(weight), graph.array(bias)
    hidden = len(weights)
    names = [f"{out}/{name}" for name in ("query", "key", "value")]

    def product(source: str, columns: slice, outputs: list[str]) -> list[NodeProto]:
        name = f"{outputs[0]}/product"
        by = graph.constant(f"{name}/weight", weights[:, columns], np.float32)
        plus = graph.constant(f"{name}/bias", biases[columns], np.float32)
        nodes = [node("MatMul", [source, by], [name]), node("Add", [name, plus], [f"{name}/biased"])]
        if len(outputs) == 1:
            nodes[-1].output[0] = outputs[0]
            return nodes
        parts = graph.constant(f"parts/{len(outputs)}", [hidden] * len(outputs))
        return [*nodes, node("Split", [f"{name}/biased", parts], outputs, axis=-1)]

    if queries == states:
        products = product(states, slice(None), names)
    else:
        products = product(queries, slice(hidden), names[:1]) + product(states, slice(hidden, None), names[1:])
    attention = node("MultiHeadAttention", [*names, "", lengths], [out], contrib=True, num_heads=heads)
    return [*products, attention]


def _embedded(graph: Graph, item: NodeProto) -> tuple[str, list[NodeProto]]:
    """Return the name of the sum of word, position and type embeddings, and the nodes that compute it."""
    ids, types, words, places, kinds = item.input[:5]
    base = item.output[0]
    zero, one, two = (graph.constant(f"number/{number}", [number]) for number in range(3))
    nodes = [
        node("Gather", [words, ids], [f"{base}/words"]),
        node("Shape", [ids], [f"{base}/shape"]),
        node("Slice", [f"{base}/shape", one, two], [f"{base}/length"]),
        node("Slice", [places, zero, f"{base}/length", zero], [f"{base}/places"]),
        node("Add", [f"{base}/words", f"{base}/places"], [f"{base}/placed"]),
    ]
    if not types:
        return f"{base}/placed", nodes
    nodes.append(node("Gather", [kinds, types], [f"{base}/types"]))
    return f"{base}/sum", [*nodes, node("Add", [f"{base}/placed", f"{base}/types"], [f"{base}/sum"])]


def _normalised(
    graph: Graph,
    item: NodeProto,
    total: str,
    affine: Sequence[str],
    shaped: dict[str, tuple[str, str, str]],
    *,
    narrow: bool,
) -> list[NodeProto]:
    """Return nodes that normalise, scale and shift each row of `total` (batch, length, hidden), as `item` does.

    `shaped` caches the shared nodes per width, separately for all rows and for the first rows (`narrow`).
    """
    base, width = item.output[0], len(graph.array(affine[0]))
    # The embeddings of ELECTRA may be narrower than its layers.
    key = f"{'first' if narrow else 'all'}/{width}"
    nodes = []
    if key not in shaped:
        shaped[key] = (f"{key}/shape", f"{key}/ones", f"{key}/zeros")
        zero, two = graph.constant("number/0", [0]), graph.constant("number/2", [2])
        nodes = [
            node("Shape", [total], [f"{key}/shape"]),
            node("Slice", [f"{key}/shape", zero, two], [f"{key}/sides"]),
            node("ReduceProd", [f"{key}/sides"], [f"{key}/rows"], keepdims=1),
            node("Expand", [graph.constant("float/one", [1], np.float32), f"{key}/rows"], [f"{key}/ones"]),
            node("Expand", [graph.constant("float/zero", [0], np.float32), f"{key}/rows"], [f"{key}/zeros"]),
        ]
    shape, ones, zeros = shaped[key]
    flat = graph.constant(f"rows/{width}", [1, -1, width])
    return [
        *nodes,
        node("Reshape", [total, flat], [f"{base}/flat"]),
        node(
            "InstanceNormalization",
            [f"{base}/flat", ones, zeros],
            [f"{base}/normal"],
            epsilon=value_of(item, "epsilon"),
        ),
        node("Reshape", [f"{base}/normal", shape], [f"{base}/shaped"]),
        node("Mul", [f"{base}/shaped", affine[0]], [f"{base}/scaled"]),
        node("Add", [f"{base}/scaled", affine[1]], [base]),
    ]
