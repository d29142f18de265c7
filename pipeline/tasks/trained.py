"""Trained models: load a train artifact and predict with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pipeline.errors import BrokenModelError
from pipeline.models.forward import run_rows
from pipeline.models.hardware import best_device, gpu_errors
from pipeline.models.network import Network
from pipeline.models.row_encoder import Encoder
from pipeline.models.tokenizer import load_tokenizer
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import TrainingFigures
from pipeline.tasks.registry import task_of
from pipeline.tasks.task import Task


@dataclass(frozen=True)
class Trained:
    """A trained model in fp32, ready to predict.

    `calibration` and `euclidean` map a bi-encoder's cosine or distance to a score (`Task.calibrate`).
    """

    recipe: Recipe
    network: Network
    tokenizer: PreTrainedTokenizerFast
    calibration: ScoreLine | None
    euclidean: ScoreLine | None
    device: torch.device

    @property
    def task(self) -> Task:
        """The task that the model has learned."""
        return task_of(self.recipe)

    def answer(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return probabilities (n, labels) or scores (n,) for the columns `text` and `text_pair` of `rows`."""
        encoder = Encoder(self.tokenizer, self.recipe.model.max_length, self.recipe.task.encodings)
        return self.answer_encoded(encoder.encode(rows).rows)

    def answer_encoded(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return the predictions for tokenized rows: probabilities or scores, which are clipped to the recipe's range.

        Raises BrokenModelError if a prediction is NaN or infinite.
        """
        return self.task.scale(self.raw_answers(table), self.calibration)

    @gpu_errors()
    def raw_answers(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Return the predictions before calibration, such as the cosines (n,) of a bi-encoder.

        Raises BrokenModelError if a prediction is NaN or infinite, GpuError if other processes occupy the GPU.
        """
        outputs = run_rows("answering", table, self.tokenizer.pad_token_id, self.device, self._logits)
        answers = self.task.decode(outputs)
        broken = ~np.isfinite(answers.reshape(len(table), -1)).all(axis=1)
        if broken.any():
            # argmax over NaN returns the first label, which would look like an answer.
            raise BrokenModelError(
                f"the model answers {broken.sum():,} of {len(table):,} inputs with NaN or infinity; train it again"
            )
        return answers

    def _logits(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.network.module(**inputs)["logits"]
        return logits


@gpu_errors()
def load_trained(recipe: Recipe, trained: Artifact, device: torch.device | None = None) -> Trained:
    """Load a train artifact in fp32 on `device`, by default the best device of this machine.

    The model's shape comes from the artifact, not from the recipe, so that older models of another shape load too.
    Raises GpuError if other processes occupy the GPU.
    """
    directory = trained.path / "model"
    fields = trained.manifest.fields
    pooling = pooling_of(fields)
    shape = recipe.model.model_copy(
        update={"objective": fields["objective"], "max_length": fields["max_length"], "pooling": pooling}
    )
    scale = fields["calibrated_to"]
    as_trained = recipe.model_copy(
        update={"model": shape, "labels": tuple(fields["labels"]), "score_range": tuple(scale) if scale else None}
    )
    figures = TrainingFigures.read(trained)
    tokenizer = load_tokenizer(directory)
    where = device or best_device()
    network = task_of(as_trained).build(directory, tokenizer)
    network.module.to(where).eval()
    return Trained(as_trained, network, tokenizer, figures.calibration, figures.euclidean, where)


def pooling_of(fields: Mapping[str, Any]) -> str:
    """Return the pooling of a trained model from the fields of its manifest."""
    # Models from before this setting have the default of that time.
    return str(fields.get("pooling", "mean" if fields["objective"] == "bi-encoder" else "cls"))
