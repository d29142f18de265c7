"""Data augmentation for a bi-encoder: derive more training pairs from the labelled ones."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: A row of a tokenize artifact with `input_ids`, `input_ids_pair` and `label`.
Row = Mapping[str, Any]
BOTH = ("input_ids", "input_ids_pair")


@dataclass(frozen=True)
class Mixing:
    """Augment the pairs of a batch without changing their number.

    The random generator is seeded with the content of the batch, so a resumed epoch gets the same pairs. Tokens are
    dropped from all texts. Some pairs get the second text of another pair, as unrelated texts. Some pairs are
    concatenated with another pair, text by text, so that the model learns from long pairs. Otherwise the vectors of
    long texts are similar whatever the texts mean, because they are means of many states.
    """

    left_out: float
    "Share of tokens to drop; a text is never emptied."
    strangers: float
    "Share of pairs that get the second text of another pair."
    joined: float
    "Share of pairs that are concatenated with another pair."
    lowest: float
    "Score of unrelated texts."
    max_length: int
    "A pair that would exceed this many tokens is not concatenated."
    seed: int

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        """Return augmented rows in the order of `rows`; both texts begin with [CLS] and end with [SEP]."""
        content = zlib.crc32(b"".join(row[name].tobytes() for row in rows for name in BOTH))
        draw = np.random.default_rng([self.seed, content])
        mixed = list(rows)
        for number, other in self._chosen(draw, len(rows), self.strangers):
            mixed[number] = {**rows[number], BOTH[1]: rows[other][BOTH[1]], "label": self.lowest}
        if self.left_out:
            mixed = [{**row, **{name: self._shorten(draw, row[name]) for name in BOTH}} for row in mixed]
        before = list(mixed)
        for number, other in self._chosen(draw, len(rows), self.joined):
            mixed[number] = self._join(before[number], before[other])
        return mixed

    def _shorten(self, draw: np.random.Generator, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        kept = draw.random(len(ids)) >= self.left_out
        kept[[0, -1]] = True
        return ids[kept] if kept.sum() > 2 else ids

    def _chosen(self, draw: np.random.Generator, count: int, share: float) -> list[tuple[int, int]]:
        """Draw a `share` of `count` rows, each with a different other row."""
        if count < 2:
            return []
        rows = draw.permutation(count)[: round(share * count)]
        others = (rows + draw.integers(1, count, len(rows))) % count
        return list(zip(rows.tolist(), others.tolist(), strict=True))

    def _join(self, row: Row, other: Row) -> Row:
        texts = {name: np.concatenate([row[name][:-1], other[name][1:]]) for name in BOTH}
        if max(map(len, texts.values())) > self.max_length:
            return row
        return {**row, **texts, "label": (row["label"] + other["label"]) / 2}
