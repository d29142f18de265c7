"""An exported file held against the trained model, on real inputs in padded batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from pipeline.encode import Encoder
from pipeline.errors import ParityError
from pipeline.metrics import compute_metrics
from pipeline.model import Collate, Rows, Trained, answers_of, to_score
from pipeline.onnx_graph import Feed
from pipeline.progress import progress
from pipeline.recipe import ParityBound, Recipe

#: Inputs in one batch of the parity check: rows of all lengths, so that most are padded.
BATCH = 32
#: Inputs on which the fp32 graph is held against the trained model, and the largest difference, a share of the
#: answer's range. Rounding is far below it; a graph that ignores the mask is above, and the recipe's bounds on
#: labels and metric might let it pass.
GRAPH_INPUTS, GRAPH_BOUND = 64, 1e-4

#: Differences in the answer's unit, the share of changed labels, and the change of the first metric.
Parity = dict[str, float]


def check_graph(model: Trained, rows: pd.DataFrame, reference: np.ndarray[Any, Any], file: Path) -> None:
    """Raise ParityError unless the fp32 graph in `file` answers padded batches as `reference` does."""
    answers = run_onnx(model, rows.head(GRAPH_INPUTS), open_session(file))
    low, high = model.recipe.score_range or (0.0, 1.0)
    difference = float(np.abs(answers - reference[:GRAPH_INPUTS]).max())
    if not difference <= GRAPH_BOUND * (high - low):
        raise ParityError(
            f"the exported graph differs from the trained model by up to {difference:.5f} in fp32 "
            f"(at most {GRAPH_BOUND * (high - low):g} is rounding); nothing was released"
        )


def beyond(parity: Parity, bound: ParityBound, rows: int) -> str | None:
    """What of `parity`, measured on so many rows, is above its bound; None where nothing is.

    One label may change among however few rows: a smaller share than that cannot be told.
    """
    for name, limit in bound.model_dump().items():
        allowed = max(limit, 1 / rows) if name == "changed_labels" else limit
        if not keeps(parity[name], allowed):
            found = f"{name} is {parity[name]:.5f} on {rows:,} rows of the test file"
            return f"{found}, above {allowed:g} (set by the recipe's [export])"
    return None


def keeps(value: float, limit: float) -> bool:
    """Whether `value` is at most `limit`, but for rounding: 0.827 - 0.826 is a little above 0.001. NaN never is."""
    return value <= limit or math.isclose(value, limit)


def measure_parity(
    recipe: Recipe, labels: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]
) -> Parity:
    """How far `answers` are from `reference`: differences in the answer's unit, changed labels, first metric."""
    differences = np.abs(answers - reference)
    if recipe.kind == "classification":
        changed = answers.argmax(axis=1) != reference.argmax(axis=1)
    else:
        changed = (answers >= recipe.similar_at) != (reference >= recipe.similar_at)
    first = recipe.metrics[0]
    before, after = (compute_metrics(recipe, labels, item)[first] for item in (reference, answers))
    return {
        "largest_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
        "changed_labels": float(changed.mean()),
        "metric_change": abs(after - before),
    }


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU, where parity is measured: CUDA's kernels are asked again by the golden sentences."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run_onnx(
    model: Trained, rows: pd.DataFrame, session: onnxruntime.InferenceSession, batch: int = BATCH
) -> np.ndarray[Any, Any]:
    """Answers of an exported file to `rows` in their order, `batch` at a time, as `Trained.answer` gives them."""
    outputs = []
    with progress("comparing", len(rows)) as advance:
        for inputs in batches_of(model, rows, batch):
            outputs.append(ask(session, inputs))
            advance(len(outputs[-1]))
    answers = answers_of(model.recipe, np.concatenate(outputs).astype(np.float32))
    return to_score(model.recipe, model.calibration, answers)


def feeds_of(model: Trained, rows: pd.DataFrame) -> Iterator[Feed]:
    """Inputs of the exported graph: `rows` in their order, in padded batches."""
    for inputs in batches_of(model, rows, BATCH):
        yield from _feeds(inputs)


def batches_of(model: Trained, rows: pd.DataFrame, batch: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """`rows` in their order, encoded and padded, `batch` at a time; of a bi-encoder both sides of the pairs."""
    table = Encoder(model.tokenizer, model.recipe.model.max_length, model.recipe.model.objective).encode(rows).rows
    encoded = Rows(table, [name for name in table.columns if name not in ("id", "length", "label")])
    collate = Collate(model.tokenizer.pad_token_id)
    for start in range(0, len(encoded), batch):
        inputs = collate([encoded[index] for index in range(start, min(start + batch, len(encoded)))])
        yield {name: tensor.numpy().astype(np.int32) for name, tensor in inputs.items()}


def _feeds(inputs: dict[str, np.ndarray[Any, Any]]) -> Iterator[Feed]:
    """What a session is given for a batch: once, or for a bi-encoder once a side of its pairs."""
    for suffix in ("", "_pair") if "input_ids_pair" in inputs else ("",):
        feed = {name: inputs[f"{name}{suffix}"] for name in ("input_ids", "attention_mask")}
        yield feed | {name: inputs[name] for name in ("token_type_ids",) if name in inputs}


def ask(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """What the exported model says to a batch of `batches_of`: logits, or cosines of a bi-encoder."""
    outputs = [np.asarray(session.run(None, dict(feed))[0]) for feed in _feeds(inputs)]
    return outputs[0] if len(outputs) == 1 else np.asarray(np.prod(outputs, axis=0).sum(axis=-1))
