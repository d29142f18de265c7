"""BentoML's own batching, as its guide has it: a batchable API over the ONNX file."""

from __future__ import annotations

import bentoml
import numpy as np

from benchmarks.rivals.model import PROCESSES, Model


# Each request would write a line to the log, which takes a tenth of the time.
@bentoml.service(workers=PROCESSES, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Batching:
    """The exported model; answers are probabilities, since an array is what its batches are cut from at least cost."""

    def __init__(self) -> None:
        self.model = Model()

    # It sheds what it expects to take longer than this, so it is generous.
    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def classify(self, texts: list[str]) -> np.ndarray:
        """Class probabilities of each text."""
        return self.model.probabilities(texts)
