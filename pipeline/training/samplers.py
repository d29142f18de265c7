"""Batch samplers that group rows of similar length to reduce padding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from typing_extensions import override

from pipeline.models.batches import Lengths, cut

#: Batches whose rows are sorted together.
GROUP = 50


class Batches(Sampler[list[int]], ABC):
    """A batch sampler whose order depends only on seed and epoch, so that an interrupted epoch can be resumed."""

    def __init__(self, lengths: Lengths, seed: int) -> None:
        """`lengths` (rows,) in tokens."""
        self._lengths = lengths
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        draw = np.random.default_rng([self._seed, self._epoch])
        batches = self._cut(draw.permutation(len(self._lengths)))
        return (batches[number] for number in draw.permutation(len(batches)).tolist())

    @property
    def mean_rows(self) -> float:
        """Return the mean number of rows per batch."""
        return len(self._lengths) / len(self)

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches per epoch, which is the same for every epoch."""

    @abstractmethod
    def _cut(self, shuffled: np.ndarray[Any, Any]) -> list[list[int]]:
        """Cut the rows, which are shuffled for each epoch, into batches."""

    def _by_length(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return rows[np.argsort(self._lengths[rows], kind="stable")]


class TokenBatches(Batches):
    """Every row once per epoch, in batches of at most `tokens` tokens, with rows of similar length.

    For large data, for which it does not matter that some rows never share a batch.
    """

    def __init__(self, lengths: Lengths, tokens: int, seed: int) -> None:
        """`tokens` include padding."""
        super().__init__(lengths, seed)
        self._tokens = tokens
        # The sorted lengths, and so the number of batches, are the same in every epoch.
        self._size = len(self._cut(np.arange(len(lengths))))

    def __len__(self) -> int:
        return self._size

    @override
    def _cut(self, shuffled: np.ndarray[Any, Any]) -> list[list[int]]:
        return cut(self._lengths, self._by_length(shuffled), self._tokens)


class EvenBatches(Batches):
    """Every row once per epoch, in batches with about equal numbers of tokens and `rows` rows on average.

    Rows are shuffled and then sorted by length within groups of `GROUP` batches, as transformers' `group_by_length`
    does. A batch has few long rows or many short ones.
    """

    def __init__(self, lengths: Lengths, rows: int, seed: int) -> None:
        """`rows` is the mean number of rows per batch."""
        super().__init__(lengths, seed)
        self._rows = rows

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._rows)

    @override
    def _cut(self, shuffled: np.ndarray[Any, Any]) -> list[list[int]]:
        group = self._rows * min(GROUP, max(1, len(shuffled) // (4 * self._rows)))
        batches = []
        for start in range(0, len(shuffled), group):
            rows = self._by_length(shuffled[start : start + group])
            batches += [part.tolist() for part in np.split(rows, self._ends(self._lengths[rows]))]
        return batches

    def _ends(self, lengths: Lengths) -> np.ndarray[Any, Any]:
        """Return the end index of each batch except the last one.

        Batches have about equal numbers of tokens, and none is empty.
        """
        count = -(-len(lengths) // self._rows)
        sums = np.cumsum(lengths)
        wanted = np.searchsorted(sums, sums[-1] * np.arange(1, count) / count)
        # Leave at least one row for each batch before and after.
        places = np.arange(1, count)
        return np.clip(np.maximum.accumulate(wanted - places), 0, len(lengths) - count) + places


class Share(Sampler[list[int]]):
    """The rows of each batch for one process: every `processes`-th row, or the first row if none is left for it."""

    def __init__(self, batches: Batches, rank: int, processes: int) -> None:
        """`rank` counts from 0 to `processes` - 1."""
        self._batches = batches
        self._rank, self._processes = rank, processes

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self._rank :: self._processes] or batch[:1] for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches)
