"""Batches of rows that are about as long as each other, so that little of them is padding."""

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
    """A batch sampler whose order follows from seed and epoch alone, so that a resumed epoch goes on where it was."""

    def __init__(self, lengths: Lengths, seed: int) -> None:
        """`lengths` (rows,) in tokens."""
        self._lengths = lengths
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """What is iterated next is epoch number `epoch`."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        draw = np.random.default_rng([self._seed, self._epoch])
        batches = self._cut(draw.permutation(len(self._lengths)))
        return (batches[number] for number in draw.permutation(len(batches)).tolist())

    @property
    def mean_rows(self) -> float:
        """Rows of a batch, on average."""
        return len(self._lengths) / len(self)

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch: in every one as many."""

    @abstractmethod
    def _cut(self, shuffled: np.ndarray[Any, Any]) -> list[list[int]]:
        """The rows, which are given in another order each epoch, in batches."""

    def _by_length(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return rows[np.argsort(self._lengths[rows], kind="stable")]


class TokenBatches(Batches):
    """Every row once an epoch, in batches of at most `tokens` tokens, of rows as long as each other.

    For texts so many that it does not matter which rows are never together.
    """

    def __init__(self, lengths: Lengths, tokens: int, seed: int) -> None:
        """`tokens` include padding."""
        super().__init__(lengths, seed)
        self._tokens = tokens
        # Which rows share a batch changes, how many batches there are does not: the sorted lengths are the same.
        self._size = len(self._cut(np.arange(len(lengths))))

    def __len__(self) -> int:
        return self._size

    @override
    def _cut(self, shuffled: np.ndarray[Any, Any]) -> list[list[int]]:
        return cut(self._lengths, self._by_length(shuffled), self._tokens)


class EvenBatches(Batches):
    """Every row once an epoch, in as many batches as with `rows` rows each, all of about as many tokens.

    Rows are mixed first and sorted within groups of `GROUP` batches, as transformers' `group_by_length` does: a batch
    has long rows or short ones, few of those and many of these.
    """

    def __init__(self, lengths: Lengths, rows: int, seed: int) -> None:
        """`rows` of a batch, on average."""
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
        """Where each batch but the last ends, so that all have about as many tokens and none is empty."""
        count = -(-len(lengths) // self._rows)
        sums = np.cumsum(lengths)
        wanted = np.searchsorted(sums, sums[-1] * np.arange(1, count) / count)
        # At least one row each, before and after.
        places = np.arange(1, count)
        return np.clip(np.maximum.accumulate(wanted - places), 0, len(lengths) - count) + places


class Share(Sampler[list[int]]):
    """One process's rows of each batch: every so many-th; of a batch with fewer rows than processes, its first row."""

    def __init__(self, batches: Batches, rank: int, processes: int) -> None:
        """`rank` counts from 0 to `processes` - 1."""
        self._batches = batches
        self._rank, self._processes = rank, processes

    def set_epoch(self, epoch: int) -> None:
        """What is iterated next is epoch number `epoch`."""
        self._batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self._rank :: self._processes] or batch[:1] for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches)
