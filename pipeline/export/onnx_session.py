"""Run an exported file on the CPU, on real inputs in padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from pipeline.metrics.arrays import Numbers
from pipeline.models.batches import Collate, Rows
from pipeline.models.row_encoder import Encoder
from pipeline.progress import progress
from pipeline.tasks.trained import Trained

#: Inputs per batch; rows of all lengths are mixed, so that most are padded.
BATCH = 32


def open_session(file: Path) -> onnxruntime.InferenceSession:
    """Open a session on the CPU, on which parity is measured; golden sentences check the CUDA kernels later."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def run_onnx(
    model: Trained, rows: pd.DataFrame, session: onnxruntime.InferenceSession, batch: int = BATCH
) -> np.ndarray[Any, Any]:
    """Return the answers of an exported file to `rows`, in row order and in the form of `Trained.answer`."""
    outputs = []
    with progress("comparing", len(rows)) as advance:
        for inputs in batches_of(model, rows, batch):
            outputs.append(ask(model, session, inputs))
            advance(len(outputs[-1]))
    answers = model.task.decode(np.concatenate(outputs).astype(np.float32))
    return model.task.scale(answers, model.calibration)


def feeds_of(model: Trained, rows: pd.DataFrame) -> Iterator[Mapping[str, Numbers]]:
    """Yield inputs of the exported graph for `rows`, in row order and in padded batches."""
    for inputs in batches_of(model, rows, BATCH):
        yield from _feeds(inputs)


def batches_of(model: Trained, rows: pd.DataFrame, batch: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Yield `rows` encoded and padded, `batch` rows at a time; for a bi-encoder, with both texts of each pair."""
    table = Encoder(model.tokenizer, model.recipe.model.max_length, model.recipe.task.encodings).encode(rows).rows
    encoded = Rows(table, [name for name in table.columns if name not in ("id", "length", "label")])
    collate = Collate(model.tokenizer.pad_token_id)
    for start in range(0, len(encoded), batch):
        inputs = collate([encoded[index] for index in range(start, min(start + batch, len(encoded)))])
        yield {name: tensor.numpy().astype(np.int32) for name, tensor in inputs.items()}


def _feeds(inputs: dict[str, np.ndarray[Any, Any]]) -> Iterator[Mapping[str, Numbers]]:
    """Yield the session inputs for a batch, one for each of its columns of token ids."""
    for suffix in [name.removeprefix("input_ids") for name in inputs if name.startswith("input_ids")]:
        feed = {name: inputs[f"{name}{suffix}"] for name in ("input_ids", "attention_mask")}
        yield feed | {name: inputs[name] for name in ("token_type_ids",) if name in inputs}


def ask(
    model: Trained, session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """Return the raw outputs for a batch of `batches_of`: logits, or the cosines of a bi-encoder."""
    return model.task.combine([np.asarray(session.run(None, dict(feed))[0]) for feed in _feeds(inputs)])
