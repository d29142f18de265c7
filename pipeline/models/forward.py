"""Run a model on all rows of a table, without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.models.batches import Collate, Rows, cut
from pipeline.progress import progress

#: Maximum tokens per batch of a forward pass without gradients, padding included.
TOKENS = 8192


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
