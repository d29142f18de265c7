"""Pair regression by a bi-encoder: decoded answers are cosines, and a fitted line maps them to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import TrainingDivergedError
from pipeline.metrics import Interval, Numbers
from pipeline.store.releases import ScoreLine
from pipeline.tasks.regression import RegressionTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from pipeline.models.network import Network


def distances_of(cosines: Numbers) -> Numbers:
    """Return the Euclidean distances (n,), from 0 to 2, of unit vectors with these cosines."""
    return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * cosines)))


def fit_line(values: Numbers, labels: Numbers) -> ScoreLine:
    """Return the least-squares line from cosine (or distance) to score.

    Raises TrainingDivergedError if all values are equal.
    """
    if np.ptp(values) == 0:
        raise TrainingDivergedError(
            "every pair has the same cosine: the encoder has collapsed; lower the learning rate"
        )
    slope, intercept = np.polyfit(values, labels, 1)
    return ScoreLine(slope=float(slope), intercept=float(intercept))


class BiEncoderTask(RegressionTask):
    """Scores of pairs from the vectors of both texts."""

    def build(self, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> Network:
        """Return a bi-encoder, trained by the correlation of a batch."""
        # Imported here so that labels are read without torch.
        from pipeline.models.build import build_bi_encoder

        return build_bi_encoder(self.recipe, base, tokenizer)

    def combine(self, outputs: Sequence[Numbers]) -> Numbers:
        """Return the cosines of the unit vectors of both texts."""
        return np.asarray(np.prod(outputs, axis=0).sum(axis=-1))

    def judge(self, outputs: Numbers, labels: Numbers) -> dict[str, float]:
        """Return the metrics of scores on the line that fits these outputs best."""
        cosines = self.decode(outputs)
        return self.metrics(labels, self.scale(cosines, fit_line(cosines, labels)))

    def calibrate(self, predict: Callable[[], tuple[Numbers, Numbers]]) -> dict[str, Any]:
        """Return the lines from cosines (`calibration`) and from distances (`euclidean`) to scores."""
        outputs, labels = predict()
        cosines = self.decode(outputs)
        by = {"calibration": cosines, "euclidean": distances_of(cosines)}
        return {name: fit_line(values, labels).model_dump() for name, values in by.items()}

    def compare_methods(
        self, labels: Numbers, raw: Numbers, found: dict[str, Interval], line: ScoreLine | None
    ) -> dict[str, Any]:
        """Return the metrics by cosine and by Euclidean distance; nothing for a model of before there were two."""
        if line is None:
            return {}
        return {
            "similarity": {
                "cosine": found,
                "euclidean": self.intervals(labels, self.scale(distances_of(raw), line)),
            }
        }
