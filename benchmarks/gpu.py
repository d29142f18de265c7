"""Compare the answers of all GPU code paths with the CPU: random models of two shapes, no data, no network.

python -m benchmarks.gpu --check [--shapes 2x32 12x768] [--device cuda]
Needs Python 3.11 or 3.12 and torch 2.11 or newer, but neither Airflow, W&B nor Great Expectations. Prints one line per
way: the largest difference from fp32 on the CPU, as a share of the largest answer or of a gradient's norm, and its
bound. On a CPU, the ways that need CUDA are listed but not run, and the compiled graphs run uncompiled. Exit status 1
if a difference exceeds its bound.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from pipeline.export.convert import write_graphs
from pipeline.export.onnx_graph import to_fp16
from pipeline.models.network import classifier_network
from pipeline.recipes.loading import load_recipe
from pipeline.tasks.trained import Trained
from pipeline.training.cls_only import compute_first_row
from pipeline.training.packing import compile_layers, pack_rows

TINY, BASE = "2x32", "12x768"
VOCABULARY, LABELS, LENGTH = 1000, 16, 64
#: Tokens per row of a batch: all different, from 2 to `LENGTH`.
LENGTHS = (64, 3, 17, 40, 2, 29, 8, 51)
#: Relative error of one rounding.
ROUNDING = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-9}
#: Successive roundings in a layer: four matrix products with their biases, two of attention and its softmax, GELU, two
#: sums and two norms. Outside the layers: embeddings, their norm, pooler and classifier.
IN_LAYER, AROUND = 12, 4
#: A backward pass has the same number of roundings twice more, for the states and for the weights.
THERE_AND_BACK = 3
#: Rounding errors are nearly independent, so their sum grows with the square root of their number (Higham and Mary
#: 2019); the largest of some thousand values is about four standard deviations from the mean.
DEVIATIONS = 4


@dataclass(frozen=True)
class Found:
    """One way and its difference from the CPU; if it is not run, `difference` is None and `reason` is set."""

    way: str
    shape: str
    difference: float | None
    bound: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Return whether the difference is within the bound; NaN never is."""
        return self.difference is None or self.difference <= self.bound

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.shape:7} {self.way:34} not run here: {self.reason}"
        verdict = "ok" if self.passed else "MISMATCH"
        return f"{self.shape:7} {self.way:34} {self.difference:.2e}, bound {self.bound:.2e}  {verdict}"


def bound(shape: str, precision: str, *, backward: bool = False) -> float:
    """Return the largest relative difference that rounding explains, for a model of `shape` (layers x hidden).

    Half-precision matrix products are summed in fp32, so only their results are rounded; in fp32 each partial sum is
    rounded, up to 4 x hidden of them (the width of the feed-forward).
    """
    layers, hidden = map(int, shape.split("x"))
    roundings = (IN_LAYER * layers + AROUND) * (THERE_AND_BACK if backward else 1)
    if precision == "fp32":
        roundings *= 4 * hidden
    return DEVIATIONS * ROUNDING[precision] * math.sqrt(roundings)


@dataclass
class RandomModel:
    """A random model of one shape, a batch, and the answers of the CPU in fp32."""

    shape: str
    device: str
    directory: Path

    @cached_property
    def model(self) -> Any:
        """Return the model, in fp32 on the CPU."""
        layers, hidden = map(int, self.shape.split("x"))
        torch.manual_seed(11)
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(4, hidden // 64),
            intermediate_size=4 * hidden,
            max_position_embeddings=LENGTH,
            num_labels=LABELS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            # BERT's value at its width: larger values make tokens alike, and attention gradients vanish in rounding.
            initializer_range=0.55 / math.sqrt(hidden),
        )
        model = BertForSequenceClassification(config).eval()
        # Sharp attention, so that a token that leaks past the mask changes the answer.
        for layer in model.bert.encoder.layer:
            layer.attention.self.query.weight.data *= 4
        return model

    @cached_property
    def batch(self) -> dict[str, Tensor]:
        """Return rows (8, 64) of `LENGTHS` tokens, padded on the right."""
        lengths = torch.tensor(LENGTHS)
        mask = (torch.arange(LENGTH) < lengths[:, None]).long()
        ids = torch.randint(5, VOCABULARY, mask.shape, generator=torch.Generator().manual_seed(3)) * mask
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(len(LENGTHS)) % LABELS}

    @cached_property
    def reference(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the CPU's logits (8, labels) and gradients, for padded rows in fp32."""
        return learn(self.model, self.batch)

    def changed(self, *changes: Callable[[Any], None]) -> Any:
        """Return a copy of the model on the device, with `changes` applied as in a training."""
        model = copy.deepcopy(self.model)
        for change in (compute_first_row, *changes):
            change(model)
        return model.to(self.device)

    @cached_property
    def graphs(self) -> dict[str, Path]:
        """Return the release's ONNX files for CUDA, by name."""
        names = ("fused", "exact", "packed", "padded")
        files = {name: self.directory / f"{self.shape}.{name}.onnx" for name in names}
        recipe = load_recipe("nsmc", "embedded", overrides={"model.pooling": "cls"})
        network = classifier_network(copy.deepcopy(self.model), "cls")
        model: Any = Trained(recipe, network, None, None, None, torch.device("cpu"))  # type: ignore[arg-type]
        write_graphs(model, files["fused"], files["exact"], files["packed"])
        to_fp16(files["fused"], files["padded"])
        return files


def learn(model: Any, batch: dict[str, Tensor], precision: str = "fp32") -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits and the gradient of each parameter, on the CPU in fp32."""
    device = next(model.parameters()).device
    half = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    model.zero_grad()
    with half:
        found = model(**{name: value.to(device) for name, value in batch.items()})
    found["loss"].backward()
    gradients = {name: item.grad.float().cpu() for name, item in model.named_parameters() if item.grad is not None}
    return found["logits"].detach().float().cpu(), gradients


def of_answers(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, as a share of the largest answer."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def of_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Return the largest norm of a gradient's difference, as a share of the gradient's norm.

    Small gradients are compared with 1% of the largest norm. NaN if the parameters differ.
    """
    if found.keys() != wanted.keys():
        return math.nan
    least = 0.01 * max(float(item.norm()) for item in wanted.values())
    shares = [float((found[name] - item).norm()) / max(float(item.norm()), least) for name, item in wanted.items()]
    return float(np.max(shares))


def of_training(subject: RandomModel, precision: str, *changes: Callable[[Any], None]) -> float:
    """Return the difference of a training step from the CPU: the larger one of answers and gradients."""
    logits, gradients = learn(subject.changed(*changes), subject.batch, precision)
    wanted, slopes = subject.reference
    return max(of_answers(logits, wanted), of_gradients(gradients, slopes))


def compiled(subject: RandomModel) -> Callable[[Any], None]:
    """Return `compile_layers` with torch's compiler on CUDA; on other devices its graphs run uncompiled."""
    return lambda model: compile_layers(model, "inductor" if subject.device == "cuda" else "eager")


def of_session(subject: RandomModel, name: str, *, replayed: bool = False) -> float:
    """Return the difference of a release's CUDA file from the CPU; `replayed` uses small batches and CUDA graphs."""
    import onnxruntime as ort

    from serving.engine.cuda_graphs import Bound, in_lane

    cuda = subject.device == "cuda"
    if cuda:
        ort.preload_dlls()
    chosen = (
        ("CUDAExecutionProvider", {"enable_cuda_graph": "1"} if replayed else {}) if cuda else "CPUExecutionProvider"
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = in_lane(lambda: ort.InferenceSession(str(subject.graphs[name]), options, providers=[chosen]))
    if cuda and session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("ONNX Runtime does not use CUDA")
    ask: Callable[[Any], Any] = Bound(session, LENGTH, subject.device).run if replayed else plain(session)
    wanted = subject.reference[0]
    return max(of_answers(torch.as_tensor(ask(feed)), wanted[rows]) for rows, feed in feeds(subject, replayed=replayed))


def plain(session: Any) -> Callable[[Any], Any]:
    """Return a function that runs a session once, in the thread that uses CUDA."""
    from serving.engine.cuda_graphs import in_lane

    return lambda feed: in_lane(lambda: session.run(None, feed)[0])


def feeds(subject: RandomModel, *, replayed: bool) -> Iterator[tuple[slice, dict[str, Any]]]:
    """Yield the rows and inputs of a graph, cut to the longest row: all rows, or twice in parts of 1, 2, 4, 8 rows."""
    count = len(LENGTHS)
    for rows in (1, 2, 4, 8) * 2 if replayed else (count,):
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            longest = max(LENGTHS[part])
            yield (
                part,
                {
                    name: subject.batch[name][part, :longest].numpy().astype(np.int32)
                    for name in ("input_ids", "attention_mask")
                },
            )


@dataclass(frozen=True)
class ComputePath:
    """One way of computing: its precision, and whether it needs CUDA."""

    name: str
    precision: str
    measure: Callable[[RandomModel], float]
    backward: bool = False
    cuda_only: bool = False


WAYS = (
    ComputePath("training, padded, fp32", "fp32", lambda it: of_training(it, "fp32"), backward=True),
    ComputePath("training, padded, bf16", "bf16", lambda it: of_training(it, "bf16"), backward=True),
    ComputePath("training, packed, bf16", "bf16", lambda it: of_training(it, "bf16", pack_rows), backward=True),
    ComputePath(
        "training, packed, compiled, bf16",
        "bf16",
        lambda it: of_training(it, "bf16", pack_rows, compiled(it)),
        backward=True,
    ),
    ComputePath("graph, padded, fp16", "fp16", lambda it: of_session(it, "padded")),
    ComputePath("graph, padded, fp16, replayed", "fp16", lambda it: of_session(it, "padded", replayed=True)),
    ComputePath("graph, packed, fp16", "fp16", lambda it: of_session(it, "packed"), cuda_only=True),
)


def check(shape: str, device: str, directory: Path) -> Iterator[Found]:
    """Yield the result of every way for a model of `shape` (layers x hidden)."""
    subject = RandomModel(shape, device, directory)
    for way in WAYS:
        limit = bound(shape, way.precision, backward=way.backward)
        if way.cuda_only and device != "cuda":
            yield Found(way.name, shape, None, limit, "no CUDA device")
            continue
        yield Found(way.name, shape, way.measure(subject), limit)


def main(words: list[str] | None = None) -> int:
    """Print a line per way and shape, and return the exit status: 1 if a difference exceeds its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", required=True, help="compare each way with the CPU")
    parser.add_argument("--shapes", nargs="+", default=[TINY, BASE], help=f"layers x hidden (default: {TINY} {BASE})")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    arguments = parser.parse_args(words)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"torch {torch.__version__}, {name}")
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for shape in arguments.shapes:
            for found in check(shape, device, Path(directory)):
                print(found, flush=True)
                failed += not found.passed
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
