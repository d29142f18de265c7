"""Loss of a classification whose labels are imbalanced: weights per label, and focal loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.metrics.arrays import Numbers
from pipeline.recipes.schema import TrainSpec


def class_loss(spec: TrainSpec, labels: Numbers, size: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the loss of logits (rows, size) and labels (rows,), or None if the recipe asks for plain cross-entropy.

    `labels` (n,) are those of all training rows. With `spec.class_weights`, a row weighs n / (size * rows of its
    label), so that every label weighs the same and the mean weight is 1. With `spec.focal`, gamma, a row weighs
    (1 - p)**gamma, where p is the probability of its label (Lin et al. 2017). The loss is the sum over rows divided by
    their number, not by their weights: so parts of a batch add up to the whole.
    """
    if not (spec.class_weights or spec.focal):
        return None
    counts = np.bincount(labels, minlength=size)
    # A label without rows has no loss, whatever its weight.
    balanced = len(labels) / (size * np.maximum(counts, 1))
    weights = torch.tensor(balanced if spec.class_weights else np.ones(size), dtype=torch.float32)

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        surprise = functional.cross_entropy(logits.float(), wanted, reduction="none")
        known = torch.exp(-surprise)
        return (weights.to(logits.device)[wanted] * (1 - known) ** spec.focal * surprise).mean()

    return loss
