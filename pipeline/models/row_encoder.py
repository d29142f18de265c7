"""Encode rows of text to token ids with a tokenizer and a maximum length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from pipeline.progress import progress
from pipeline.store.figures import EncodedSplit
from pipeline.texts import composed

#: Inputs per call of the tokenizer.
ROWS_PER_CALL = 8192


@dataclass(frozen=True)
class Encoded:
    """Encoded rows and their figures."""

    rows: pd.DataFrame
    figures: EncodedSplit


class Encoder:
    """Encoder of rows to token ids, with one tokenizer and one maximum length."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, max_length: int, encodings: Mapping[str, tuple[str, ...]]
    ) -> None:
        """`max_length` includes special tokens; `encodings` are those of the kind of task."""
        self._tokens: Tokenizer = tokenizer.backend_tokenizer
        self._tokens.no_padding()
        self._tokens.enable_truncation(max_length)
        self._unknown = tokenizer.unk_token_id
        self._encodings = encodings

    def encode(self, rows: pd.DataFrame) -> Encoded:
        """Encode `text` (and `text_pair`) of `rows`; of the other columns only `id` and `label` are kept."""
        table = rows[[name for name in ("id", "label") if name in rows]].reset_index(drop=True)
        batches = {}
        for name, texts in self._encodings.items():
            # Files are normalized to NFC when they are read, but other texts, such as those of behavioural tests, are
            # not.
            columns = [list(map(composed, rows[text])) for text in texts]
            batches[name] = self._encode(columns[0] if len(columns) == 1 else list(zip(*columns, strict=True)))
            if len(columns) > 1:
                table["token_type_ids"] = pd.Series([np.array(item.type_ids, np.int32) for item in batches[name]])
        for name, encodings in batches.items():
            table[name] = pd.Series([np.array(item.ids, np.int32) for item in encodings])
        table["length"] = np.max([[len(ids) for ids in table[name]] for name in batches], axis=0)
        return Encoded(table, self._figures(batches))

    def _encode(self, inputs: list[Any]) -> list[Any]:
        encodings = []
        with progress("encoding", len(inputs)) as advance:
            for start in range(0, len(inputs), ROWS_PER_CALL):
                encodings += self._tokens.encode_batch(inputs[start : start + ROWS_PER_CALL])
                advance(len(encodings) - start)
        return encodings

    def _figures(self, batches: dict[str, Any]) -> EncodedSplit:
        encodings = [item for batch in batches.values() for item in batch]
        ids = np.concatenate([item.ids for item in encodings])
        special = np.concatenate([item.special_tokens_mask for item in encodings])
        words = ids[special == 0]
        return EncodedSplit(
            rows=len(batches["input_ids"]),
            truncated=float(np.mean([bool(item.overflowing) for item in encodings])),
            unknown=float((words == self._unknown).mean()) if len(words) else 0.0,
            mean_length=float(np.mean([len(item.ids) for item in encodings])),
        )
