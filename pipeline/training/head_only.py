"""Head-only tuning: the frozen base model encodes every row once, and only the head is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from pipeline.models.forward import run_rows
from pipeline.models.hardware import best_device
from pipeline.models.heads import POOLINGS


class Vectors(Dataset[dict[str, Any]]):
    """Pooled encoder vectors of all rows, computed once without dropout."""

    def __init__(self, classifier: PreTrainedModel, pooling: str, file: Path, pad: int) -> None:
        """Encode the rows of `file`, one split of a tokenize artifact; `pad` is the id of [PAD]."""
        table = pd.read_parquet(file)
        encoder: Any = classifier.base_model.to(best_device()).eval()

        def read(**inputs: Tensor) -> Tensor:
            return POOLINGS[pooling](encoder(**inputs).last_hidden_state, inputs["attention_mask"])

        self._states = torch.from_numpy(run_rows("reading", table, pad, best_device(), read))
        self._labels = torch.tensor(table["label"].tolist())

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"states": self._states[index], "labels": self._labels[index]}
