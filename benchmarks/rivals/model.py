"""The exported model without the engine: ONNX Runtime, one thread, each batch padded to its longest text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

#: Texts per padded batch; on a CPU larger ones are not faster and exceed its caches.
BATCH = 32
RELEASE = Path(os.environ["BENCHMARK_RELEASE"])
PROCESSES = int(os.environ["BENCHMARK_PROCESSES"])
CARD = json.loads((RELEASE / "card.json").read_text(encoding="utf-8"))
LABELS: list[str] = CARD["labels"]
MAX_LENGTH: int = CARD["max_length"]
#: The file for the CPU: int8 if the release has it.
FILE = RELEASE / CARD["variants"]["cpu"][0]["file"]


class Model:
    """Tokenizer and session of the release."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(RELEASE / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_LENGTH)
        self._tokenizer.enable_padding(pad_id=self._tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(FILE, options, providers=["CPUExecutionProvider"])
        self._inputs = [item.name for item in self._session.get_inputs()]

    def probabilities(self, texts: list[str]) -> NDArray[np.float32]:
        """Return class probabilities (texts, labels)."""
        # Batch texts of similar length: otherwise most of a batch of reviews is padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        parts = [order[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        found = np.concatenate([self._forward([texts[row] for row in part]) for part in parts])
        return found[np.argsort(order)]

    def answers(self, texts: list[str]) -> list[dict[str, object]]:
        """Return label and probability of each text."""
        rows = self.probabilities(texts)
        best = rows.argmax(1).tolist()
        return [{"label": LABELS[at], "score": float(row[at])} for row, at in zip(rows, best, strict=True)]

    def _forward(self, texts: list[str]) -> NDArray[np.float32]:
        found = self._tokenizer.encode_batch(texts)
        feed = {
            "input_ids": np.array([item.ids for item in found], dtype=np.int32),
            "attention_mask": np.array([item.attention_mask for item in found], dtype=np.int32),
            "token_type_ids": np.array([item.type_ids for item in found], dtype=np.int32),
        }
        logits = self._session.run(None, {name: feed[name] for name in self._inputs})[0].astype(np.float32)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True), dtype=np.float32)
