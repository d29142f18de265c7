"""Batches by tokens: every row once, at most `tokens` tokens, and a reproducible order per seed."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st

from pipeline.models.batches import cut
from pipeline.training.samplers import EvenBatches, TokenBatches
from tests.support.properties import given

pytestmark = pytest.mark.torch

LENGTHS = np.random.default_rng(7).integers(5, 64, 1_000)


@example([512] * 40, 120)
@example([20_000, 3, 4], 120)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_batch_limits_tokens_and_isolates_a_longer_row(values: list[int], tokens: int) -> None:
    lengths = np.array(values, np.int64)
    batches = cut(lengths, np.arange(len(lengths)), tokens)
    assert [row for batch in batches for row in batch] == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= tokens
    for batch, following in pairwise(batches):
        # As many rows as fit.
        assert max(lengths[batch].max(), lengths[following[0]]) * (len(batch) + 1) > tokens


def test_epoch_has_every_row_once_with_little_padding() -> None:
    batches = list(TokenBatches(LENGTHS, 512, seed=7))
    assert sorted(row for batch in batches for row in batch) == list(range(len(LENGTHS)))
    padded = sum(LENGTHS[batch].max() * len(batch) for batch in batches)
    assert LENGTHS.sum() / padded > 0.97


def test_epochs_differ_and_each_is_reproducible() -> None:
    batches, again = (TokenBatches(LENGTHS, 512, seed=7) for _ in range(2))
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert first != second
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}
    assert len(first) == len(second) == len(batches)
    again.set_epoch(1)
    assert list(again) == second
    assert list(TokenBatches(LENGTHS, 512, seed=8)) != first


def test_lengths_do_not_come_in_order() -> None:
    longest = [LENGTHS[batch].max() for batch in TokenBatches(LENGTHS, 512, seed=7)]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.5


@example([512, 1, 1, 1], 2)
@example([1, 1, 1, 512], 1)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.integers(1, 40))
def test_even_batches_have_the_expected_count(values: list[int], rows: int) -> None:
    batches = list(EvenBatches(np.array(values, np.int64), rows, seed=7))
    assert sorted(row for batch in batches for row in batch) == list(range(len(values)))
    assert len(batches) == len(EvenBatches(np.array(values, np.int64), rows, seed=7)) == math.ceil(len(values) / rows)
    assert all(batches)


def test_even_batches_have_similar_tokens_and_little_padding() -> None:
    batches = list(EvenBatches(LENGTHS, 10, seed=7))
    tokens = np.array([LENGTHS[batch].sum() for batch in batches])
    assert tokens.std() / tokens.mean() < 0.1
    assert tokens.sum() / sum(LENGTHS[batch].max() * len(batch) for batch in batches) > 0.95
    # In the next epoch, different rows share a batch, and not only among the shortest or the longest.
    following = EvenBatches(LENGTHS, 10, seed=7)
    following.set_epoch(1)
    assert {frozenset(batch) for batch in following}.isdisjoint(map(frozenset, batches))
