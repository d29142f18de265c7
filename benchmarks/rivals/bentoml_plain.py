"""Plain BentoML, as in its first example: a synchronous API over a transformers pipeline."""

from __future__ import annotations

import os
from typing import Any

import bentoml

from benchmarks.rivals.model import MAX_LENGTH, PROCESSES


@bentoml.service(workers=PROCESSES, traffic={"timeout": 60})
class Plain:
    """The trained model in fp32."""

    def __init__(self) -> None:
        import torch
        from transformers import pipeline

        # One process per core: more threads would compete for the cores.
        torch.set_num_threads(1)
        checkpoint = os.environ["BENCHMARK_CHECKPOINT"]
        self.pipeline = pipeline(
            "text-classification", model=checkpoint, device="cpu", truncation=True, max_length=MAX_LENGTH
        )

    @bentoml.api
    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return label and score of each text."""
        found: list[dict[str, Any]] = self.pipeline(texts)
        return found
