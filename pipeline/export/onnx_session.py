"""What an exported file answers on the CPU to real inputs in padded batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from pipeline.export.onnx_graph import Feed
from pipeline.models.batches import Collate, Rows
from pipeline.models.row_encoder import Encoder
from pipeline.models.trained import Trained, answers_of, to_score
from pipeline.progress import progress

#: Inputs in one batch: rows of all lengths, so that most are padded.
BATCH = 32


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
