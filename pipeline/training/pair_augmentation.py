"""More pairs from few: what a bi-encoder learns from beside the pairs that somebody has scored."""

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
    """Makes other pairs of those of a batch, as many; the batch itself says which: a resumed epoch has the same.

    Tokens are left out of all texts. Of some pairs the second text becomes another pair's: texts that have nothing to
    do with each other. To some another pair is appended, text to text: long pairs, which otherwise look alike, because
    means of many states do.
    """

    left_out: float
    "Share of the tokens that are left out; never all of a text."
    strangers: float
    "Share whose second text is another's."
    joined: float
    "Share to which another is appended."
    lowest: float
    "Score of texts that have nothing to do with each other."
    max_length: int
    "A pair that would have more tokens is left as it is."
    seed: int

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        """Rows in the order of `rows`; both texts begin with [CLS] and end with [SEP]."""
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
        """So many rows, and for each one that is not the same."""
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
