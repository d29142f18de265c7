"""Whether the ways of computing on a GPU give the CPU's answers: random models of two shapes, no data, no network.

python -m benchmarks.gpu --check [--shapes 2x32 12x768] [--device cuda]
Python 3.11 or 3.12 and torch 2.11 or newer; neither Airflow, W&B nor Great Expectations. A line per way: the largest
difference from fp32 on the CPU, as a share of the largest answer or of a gradient's norm, and its bound. On a CPU the
ways that need CUDA are named and not run, and layers are compiled by no compiler. Exit status 1: a difference is above
its bound.
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
from pipeline.models.trained import Trained
from pipeline.recipes.loading import load_recipe
from pipeline.training.cls_only import compute_first_row
from pipeline.training.packing import compile_layers, pack_rows

TINY, BASE = "2x32", "12x768"
VOCABULARY, LABELS, LENGTH = 1000, 16, 64
#: Tokens of the rows of a batch: one of each extreme, and no two alike.
LENGTHS = (64, 3, 17, 40, 2, 29, 8, 51)
#: Relative error of one rounding.
ROUNDING = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-9}
#: Roundings one after the other in a layer: four products of matrices with their biases, two of attention and its
#: softmax, GELU, two sums and two norms. Before and after the layers: embeddings, their norm, pooler and classifier.
IN_LAYER, AROUND = 12, 4
#: A backward pass goes through as many again, for the states and for the weights.
THERE_AND_BACK = 3
#: Roundings are as good as independent, so that their sum grows with the root of their number (Higham and Mary 2019);
#: the largest of some thousand values is about four standard deviations from the mean.
DEVIATIONS = 4


@dataclass(frozen=True)
class Found:
    """One way, and how far it is from the CPU; `difference` is None where it is not run, and `reason` says why."""

    way: str
    shape: str
    difference: float | None
    bound: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return self.difference is None or self.difference <= self.bound

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.shape:7} {self.way:34} not run here: {self.reason}"
        verdict = "ok" if self.passed else "MISMATCH"
        return f"{self.shape:7} {self.way:34} {self.difference:.2e}, bound {self.bound:.2e}  {verdict}"


def bound(shape: str, precision: str, *, backward: bool = False) -> float:
    """The largest relative difference that rounding explains, of a model of `shape` (layers x hidden).

    Products of matrices in halves are summed in fp32, so that only their results are rounded; in fp32 each of the sums
    is, as many times as the feed-forward is wide.
    """
    layers, hidden = map(int, shape.split("x"))
    roundings = (IN_LAYER * layers + AROUND) * (THERE_AND_BACK if backward else 1)
    if precision == "fp32":
        roundings *= 4 * hidden
    return DEVIATIONS * ROUNDING[precision] * math.sqrt(roundings)


@dataclass
class Subject:
    """A random model of one shape, a batch, and the CPU's answers in fp32."""

    shape: str
    device: str
    directory: Path

    @cached_property
    def model(self) -> Any:
        """The model, in fp32 on the CPU."""
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
            # BERT's own at its width: with more, tokens become alike and gradients of attention are lost in rounding.
            initializer_range=0.55 / math.sqrt(hidden),
        )
        model = BertForSequenceClassification(config).eval()
        # Attention far from even, so that a token that is seen where it should not be changes the answer.
        for layer in model.bert.encoder.layer:
            layer.attention.self.query.weight.data *= 4
        return model

    @cached_property
    def batch(self) -> dict[str, Tensor]:
        """Rows (8, 64) of `LENGTHS` tokens, padded on the right."""
        lengths = torch.tensor(LENGTHS)
        mask = (torch.arange(LENGTH) < lengths[:, None]).long()
        ids = torch.randint(5, VOCABULARY, mask.shape, generator=torch.Generator().manual_seed(3)) * mask
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(len(LENGTHS)) % LABELS}

    @cached_property
    def reference(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The CPU's logits and gradients, of padded rows in fp32."""
        return learn(self.model, self.batch)

    def changed(self, *changes: Callable[[Any], None]) -> Any:
        """A copy of the model on the device, changed by `changes` as a training changes it."""
        model = copy.deepcopy(self.model)
        for change in (compute_first_row, *changes):
            change(model)
        return model.to(self.device)

    @cached_property
    def graphs(self) -> dict[str, Path]:
        """The files that a release has for CUDA, by name."""
        names = ("fused", "exact", "packed", "padded")
        files = {name: self.directory / f"{self.shape}.{name}.onnx" for name in names}
        recipe = load_recipe("nsmc", "embedded", overrides={"model.pooling": "cls"})
        model: Any = Trained(recipe, copy.deepcopy(self.model), None, None, None, torch.device("cpu"))  # type: ignore[arg-type]
        write_graphs(model, files["fused"], files["exact"], files["packed"])
        to_fp16(files["fused"], files["padded"])
        return files


def learn(model: Any, batch: dict[str, Tensor], precision: str = "fp32") -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and the gradient of each parameter, on the CPU in fp32."""
    device = next(model.parameters()).device
    half = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    model.zero_grad()
    with half:
        found = model(**{name: value.to(device) for name, value in batch.items()})
    found["loss"].backward()
    gradients = {name: item.grad.float().cpu() for name, item in model.named_parameters() if item.grad is not None}
    return found["logits"].detach().float().cpu(), gradients


def of_answers(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest answer."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def of_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference in norm, as a share of a gradient's norm; of tiny ones, of 1% of the largest norm."""
    if found.keys() != wanted.keys():
        return math.nan
    least = 0.01 * max(float(item.norm()) for item in wanted.values())
    shares = [float((found[name] - item).norm()) / max(float(item.norm()), least) for name, item in wanted.items()]
    return float(np.max(shares))


def of_training(subject: Subject, precision: str, *changes: Callable[[Any], None]) -> float:
    """How far a step of training is from the CPU's: its answers or its gradients, whichever is farther."""
    logits, gradients = learn(subject.changed(*changes), subject.batch, precision)
    wanted, slopes = subject.reference
    return max(of_answers(logits, wanted), of_gradients(gradients, slopes))


def compiled(subject: Subject) -> Callable[[Any], None]:
    """`compile_layers` by torch's own compiler on CUDA; elsewhere its graphs are run as they are, uncompiled."""
    return lambda model: compile_layers(model, "inductor" if subject.device == "cuda" else "eager")


def of_session(subject: Subject, name: str, *, replayed: bool = False) -> float:
    """How far a release's file for CUDA is from the CPU; small batches of each shape, replayed with other rows each."""
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
    """One run of a session, in the thread that CUDA is used from."""
    from serving.engine.cuda_graphs import in_lane

    return lambda feed: in_lane(lambda: session.run(None, feed)[0])


def feeds(subject: Subject, *, replayed: bool) -> Iterator[tuple[slice, dict[str, Any]]]:
    """The batch as a graph wants it, cut to its longest row: whole, or twice in parts of 1, 2, 4 and 8 rows."""
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
class Way:
    """One way of computing: its precision, and whether it runs on CUDA alone."""

    name: str
    precision: str
    measure: Callable[[Subject], float]
    backward: bool = False
    cuda_only: bool = False


WAYS = (
    Way("training, padded, fp32", "fp32", lambda it: of_training(it, "fp32"), backward=True),
    Way("training, padded, bf16", "bf16", lambda it: of_training(it, "bf16"), backward=True),
    Way("training, packed, bf16", "bf16", lambda it: of_training(it, "bf16", pack_rows), backward=True),
    Way(
        "training, packed, compiled, bf16",
        "bf16",
        lambda it: of_training(it, "bf16", pack_rows, compiled(it)),
        backward=True,
    ),
    Way("graph, padded, fp16", "fp16", lambda it: of_session(it, "padded")),
    Way("graph, padded, fp16, replayed", "fp16", lambda it: of_session(it, "padded", replayed=True)),
    Way("graph, packed, fp16", "fp16", lambda it: of_session(it, "packed"), cuda_only=True),
)


def check(shape: str, device: str, directory: Path) -> Iterator[Found]:
    """Every way with a model of `shape`, layers x hidden."""
    subject = Subject(shape, device, directory)
    for way in WAYS:
        limit = bound(shape, way.precision, backward=way.backward)
        if way.cuda_only and device != "cuda":
            yield Found(way.name, shape, None, limit, "no CUDA device")
            continue
        yield Found(way.name, shape, way.measure(subject), limit)


def main(words: list[str] | None = None) -> int:
    """Print a line per way and shape; the exit status."""
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
