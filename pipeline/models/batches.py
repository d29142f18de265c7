"""Encoded rows, and padded batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

Lengths = np.ndarray[Any, Any]


class Rows(Dataset[dict[str, Any]]):
    """Encoded rows as the Trainer expects them: one dictionary per row."""

    def __init__(self, table: pd.DataFrame, columns: Sequence[str]) -> None:
        """Keep only `columns` of `table`."""
        self._columns = {name: table[name].tolist() for name in columns}
        self._length = len(table)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._columns.items()}


def load_rows(file: Path, *, by_length: bool = False) -> Rows:
    """Load the rows of one split of a tokenized artifact, in file order or, with `by_length`, longest first."""
    table = pd.read_parquet(file)
    if by_length:
        # Longest first, so that running out of memory happens at once.
        table = table.sort_values("length", ascending=False, kind="stable")
    return Rows(table, [name for name in table.columns if name not in ("id", "length")])


@dataclass(frozen=True)
class Collate:
    """Collate rows into a batch, padded on the right to its longest row, with attention masks."""

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return tensors (batch, length) for each column of ids and mask, and (batch,) for the labels."""
        batch: dict[str, Tensor] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if name == "label":
                kind = torch.float32 if isinstance(values[0], float) else torch.long
                batch["labels"] = torch.tensor(values, dtype=kind)
                continue
            batch[name] = _pad(values, 0 if name == "token_type_ids" else self.pad)
            if name != "token_type_ids":
                mask = [np.ones(len(value), np.int64) for value in values]
                batch[name.replace("input_ids", "attention_mask")] = _pad(mask, 0)
        return batch


def _pad(values: Sequence[np.ndarray[Any, Any]], filler: int) -> Tensor:
    padded = np.full((len(values), max(map(len, values))), filler, np.int64)
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value
    return torch.from_numpy(padded)


def cut(lengths: Lengths, order: np.ndarray[Any, Any], tokens: int) -> list[list[int]]:
    """Cut the rows of `order` into batches of at most `tokens` tokens, padding included.

    A longer row is a batch of its own.

    Padding is small if `order` sorts the rows by `lengths`.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in order.tolist():
        longest = max(longest, int(lengths[row]))
        if not batches or longest * (len(batches[-1]) + 1) > tokens:
            batches.append([])
            longest = int(lengths[row])
        batches[-1].append(row)
    return batches
