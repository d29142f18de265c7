"""transformers' Trainer as we use it, and what it says of its speed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import Trainer
from typing_extensions import override


@dataclass
class Meter:
    """Counts what goes into a model, padding apart."""

    rows: int = 0
    tokens: int = 0
    places: int = 0
    "Tokens with the padding."
    started: float = field(default_factory=time.monotonic)

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Count a batch, as `Collate` makes it."""
        masks = [value for name, value in inputs.items() if name.startswith("attention_mask")]
        self.rows += len(masks[0])
        self.tokens += sum(int(mask.sum()) for mask in masks)
        self.places += sum(mask.numel() for mask in masks)

    @property
    def padding(self) -> float:
        """Share of the places that were padding."""
        return 1 - self.tokens / self.places if self.places else 0.0

    def figures(self) -> dict[str, float]:
        """Rows and tokens a second, and the share of padding."""
        seconds = max(1e-9, time.monotonic() - self.started)
        rates = {"samples_per_second": self.rows / seconds, "tokens_per_second": self.tokens / seconds}
        return rates | {"padding": self.padding}


class FineTuner(Trainer):
    """transformers' Trainer; beside each loss it logs how fast it goes and how much of that is padding."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """As the Trainer's."""
        super().__init__(*args, **options)
        self.meter, self._lately = Meter(), Meter()

    @override
    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Tensor:
        # Before they are on a GPU, which would have to be waited for.
        self.meter.count(inputs)
        self._lately.count(inputs)
        return super().training_step(model, inputs, *args, **options)

    @override
    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        if "loss" in logs:
            logs |= self._lately.figures()
        # What evaluation takes is no time of training.
        self._lately = Meter()
        super().log(logs, *args, **options)
