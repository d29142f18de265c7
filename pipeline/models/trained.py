"""Trained models: load a train artifact and predict with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from pipeline.errors import BrokenModelError
from pipeline.models.batches import Collate, Rows, cut
from pipeline.models.build import build_model
from pipeline.models.hardware import best_device
from pipeline.models.row_encoder import Encoder
from pipeline.models.tokenizer import load_tokenizer
from pipeline.progress import progress
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.releases import ScoreLine

#: Maximum tokens per batch of a forward pass without gradients, padding included.
TOKENS = 8192


def answers_of(recipe: Recipe, outputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert raw outputs to probabilities (n, labels) for a classification, else to one number per row (n,)."""
    if recipe.kind == "regression":
        return np.asarray(outputs.reshape(-1))
    shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to answer, in fp32.

    `calibration` and `euclidean` map a bi-encoder's cosine or distance to a score (`pipeline.training.fine_tune`).
    """

    recipe: Recipe
    module: nn.Module
    tokenizer: PreTrainedTokenizerFast
    calibration: ScoreLine | None
    euclidean: ScoreLine | None
    device: torch.device

    def answer(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return probabilities (n, labels) or scores (n,) for the columns `text` and `text_pair` of `rows`."""
        encoder = Encoder(self.tokenizer, self.recipe.model.max_length, self.recipe.model.objective)
        return self.answer_encoded(encoder.encode(rows).rows)

    def answer_encoded(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return answers to the rows of a tokenized artifact; scores are clipped to the recipe's range.

        Raises BrokenModelError if an answer is NaN or infinite.
        """
        return to_score(self.recipe, self.calibration, self.raw_answers(table))

    def raw_answers(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return answers before calibration, such as the cosines (n,) of a bi-encoder. Raises as `answer_encoded`."""
        outputs = run_rows("answering", table, self.tokenizer.pad_token_id, self.device, self._logits)
        answers = answers_of(self.recipe, outputs)
        broken = ~np.isfinite(answers.reshape(len(table), -1)).all(axis=1)
        if broken.any():
            # argmax over NaN returns the first label, which would look like an answer.
            raise BrokenModelError(
                f"the model answers {broken.sum():,} of {len(table):,} inputs with NaN or infinity; train it again"
            )
        return answers

    def _logits(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.module(**inputs)["logits"]
        return logits


@torch.inference_mode()
def run_rows(
    what: str, table: pd.DataFrame, pad: int, device: torch.device, call: Callable[..., Tensor]
) -> np.ndarray[Any, Any]:
    """Run `call`, with outputs (batch, ...), on the rows of a tokenized artifact.

    Returns the outputs (n, ...) in row order and in fp32. Rows of similar length share a batch. `what` is the label of
    the progress bar.
    """
    rows = Rows(table, [name for name in table.columns if name not in ("id", "length", "label")])
    collate = Collate(pad)
    outputs: list[np.ndarray[Any, Any] | None] = [None] * len(rows)
    lengths = table["length"].to_numpy()
    with progress(what, len(rows)) as advance:
        for batch in cut(lengths, np.argsort(lengths, kind="stable"), TOKENS):
            inputs = collate([rows[index] for index in batch])
            result = call(**{name: tensor.to(device) for name, tensor in inputs.items()})
            for index, value in zip(batch, result.float().cpu().numpy(), strict=True):
                outputs[index] = value
            advance(len(batch))
    return np.stack([value for value in outputs if value is not None])


def to_score(recipe: Recipe, calibration: ScoreLine | None, answers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Calibrate a regression's answers and clip them to the score range; probabilities pass through."""
    if recipe.score_range is None:
        return answers
    if calibration is not None:
        answers = calibration.slope * answers + calibration.intercept
    low, high = recipe.score_range
    return np.asarray(np.clip(answers, low, high))


def distances_of(cosines: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the Euclidean distances (n,), from 0 to 2, of unit vectors with these cosines."""
    return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * cosines)))


def load_trained(recipe: Recipe, trained: Artifact, device: torch.device | None = None) -> Trained:
    """Load a train artifact in fp32 on `device`, by default the best device of this machine.

    The model's shape comes from the artifact, not from the recipe, so that older models of another shape load too.
    """
    directory = trained.path / "model"
    fields = trained.manifest.fields
    # Models from before this setting have the default of that time.
    pooling = fields.get("pooling", "mean" if fields["objective"] == "bi-encoder" else "cls")
    shape = recipe.model.model_copy(
        update={"objective": fields["objective"], "max_length": fields["max_length"], "pooling": pooling}
    )
    scale = fields["calibrated_to"]
    as_trained = recipe.model_copy(
        update={"model": shape, "labels": tuple(fields["labels"]), "score_range": tuple(scale) if scale else None}
    )
    lines = [trained.figures.get(name) for name in ("calibration", "euclidean")]
    calibration, euclidean = (ScoreLine(**line) if line else None for line in lines)
    tokenizer = load_tokenizer(directory)
    where = device or best_device()
    module = build_model(as_trained, directory, tokenizer).to(where).eval()
    return Trained(as_trained, module, tokenizer, calibration, euclidean, where)
