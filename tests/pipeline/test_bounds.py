"""Bounds on shares of few rows: how many rows a share allows."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from pipeline.bounds import most_of


def chance_of(count: int, rows: int, share: str) -> Fraction:
    """Chance that at least `count` of `rows` are bad where `share` of all are, exactly."""
    bad = Fraction(share)
    few = (comb(rows, number) * bad**number * (1 - bad) ** (rows - number) for number in range(count))
    return 1 - sum(few, Fraction(0))


@pytest.mark.parametrize("rows", [1, 2, 10, 100, 500, 519, 1000])
@pytest.mark.parametrize("share", ["0.0005", "0.001", "0.003", "0.005", "0.01", "0.2", "0.5", "0.9"])
def test_most_of_rows_is_reached_by_chance_and_one_more_is_not(rows: int, share: str) -> None:
    most = most_of(rows, float(share))
    assert most == 0 or chance_of(most, rows, share) > Fraction(1, 1000)
    assert chance_of(most + 1, rows, share) <= Fraction(1, 1000)


@pytest.mark.parametrize(
    ("rows", "share", "most"),
    # Of Poisson tables but for the last: P(X >= 6 | 1) = 0.0006, P(X >= 14 | 5) = 0.0007, and so on.
    [(1000, 0.001, 5), (1000, 0.005, 13), (500, 0.001, 4), (500, 0.01, 13), (100, 0.001, 2), (150_000, 0.005, 836)],
)
def test_most_of_rows_of_shipped_bounds(rows: int, share: float, most: int) -> None:
    assert most_of(rows, share) == most


@pytest.mark.parametrize("share", [0.0005, 0.001, 0.005, 0.01, 0.1, 0.5, 1.0])
def test_most_of_rows_is_never_fewer_than_the_share(share: float) -> None:
    assert all(most_of(rows, share) >= int(share * rows) for rows in range(1, 400))


def test_most_of_many_rows_comes_near_the_share() -> None:
    assert 0.005 < most_of(10_000_000, 0.005) / 10_000_000 < 0.00507


def test_most_of_no_share_is_none_and_of_all_is_all() -> None:
    assert [most_of(rows, 0.0) for rows in (0, 1, 1000)] == [0, 0, 0]
    assert [most_of(rows, 1.0) for rows in (0, 1, 1000)] == [0, 1, 1000]


def test_most_of_a_single_row() -> None:
    # A share of 1 in 1,000 is just what one row of one has by chance.
    assert (most_of(1, 0.0009), most_of(1, 0.0011)) == (0, 1)
