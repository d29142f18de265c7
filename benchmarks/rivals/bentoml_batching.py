"""BentoML's own batching, as in its guide: a batchable API over the ONNX file."""

from __future__ import annotations

import bentoml
import numpy as np

from benchmarks.rivals.model import PROCESSES, Model


# Without the access log, which takes a tenth of the time.
@bentoml.service(workers=PROCESSES, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Batching:
    """The exported model. Answers are probabilities, because splitting a batch is cheapest for arrays."""

    def __init__(self) -> None:
        self.model = Model()

    # Generous, because BentoML sheds requests that it expects to exceed this latency.
    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def classify(self, texts: list[str]) -> np.ndarray:
        """Return the class probabilities (texts, labels)."""
        return self.model.probabilities(texts)
