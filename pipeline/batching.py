"""Batches of rows that are about as long as each other, so that little of them is padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

Lengths = np.ndarray[Any, Any]


def cut(lengths: Lengths, order: np.ndarray[Any, Any], tokens: int) -> list[list[int]]:
    """The rows of `order` in batches of at most `tokens` tokens, padding included; a longer row stands alone.

    Little is padded where `order` sorts the rows by `lengths`.
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


class TokenBatches(Sampler[list[int]]):
    """Every row once an epoch, in batches of at most `tokens` tokens; rows and batches in another order each epoch.

    A batch sampler; the order follows from seed and epoch alone, so that a resumed epoch goes on where it was.
    """

    def __init__(self, lengths: Lengths, tokens: int, seed: int) -> None:
        """`lengths` (rows,) in tokens."""
        self._lengths = lengths
        self._tokens = tokens
        self._seed = seed
        self._epoch = 0
        # Which rows share a batch changes, how many batches there are does not: the sorted lengths are the same.
        self._size = len(cut(lengths, np.argsort(lengths, kind="stable"), tokens))

    def set_epoch(self, epoch: int) -> None:
        """What is iterated next is epoch number `epoch`."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[list[int]]:
        draw = np.random.default_rng([self._seed, self._epoch])
        shuffled = draw.permutation(len(self._lengths))
        batches = cut(self._lengths, shuffled[np.argsort(self._lengths[shuffled], kind="stable")], self._tokens)
        return (batches[number] for number in draw.permutation(len(batches)).tolist())
