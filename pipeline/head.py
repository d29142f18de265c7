"""Head-only tuning: the base model reads every row once, and only what stands on it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from pipeline.hardware import best_device
from pipeline.model import run_rows


class Head(nn.Module):
    """What stands on the encoder of a BERT- or ELECTRA-shaped sequence classifier; it reads the state of [CLS]."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        """The modules are those of `classifier`: what is learnt is learnt there."""
        super().__init__()
        whole: Any = classifier
        self.regression = whole.config.problem_type == "regression"
        pooler = getattr(whole.base_model, "pooler", None)
        # ELECTRA has none, and its own head drops out.
        self.features = nn.Identity() if pooler is None else nn.Sequential(pooler, whole.dropout)
        self.classifier: nn.Module = whole.classifier

    def forward(self, states: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """`logits` (batch, labels) for `states` (batch, hidden), and the loss where `labels` (batch,) are given."""
        logits = self.classifier(self.features(states[:, None]))
        if labels is None:
            return {"logits": logits}
        if self.regression:
            return {"loss": functional.mse_loss(logits[:, 0], labels), "logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class States(Dataset[dict[str, Any]]):
    """What the encoder makes of each row's [CLS], computed once, without dropout."""

    def __init__(self, classifier: PreTrainedModel, file: Path, pad: int) -> None:
        """`file` is one side of a tokenize artifact; `pad` the id of [PAD]."""
        table = pd.read_parquet(file)
        encoder: Any = classifier.base_model.to(best_device()).eval()

        def first(**inputs: Tensor) -> Tensor:
            states: Tensor = encoder(**inputs).last_hidden_state[:, 0]
            return states

        self._states = torch.from_numpy(run_rows("reading", table, pad, best_device(), first))
        self._labels = torch.tensor(table["label"].tolist())

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"states": self._states[index], "labels": self._labels[index]}
