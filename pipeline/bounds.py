"""Bounds on figures of few rows: what chance may add to them."""

from __future__ import annotations

from statistics import NormalDist

#: Chance that rows of which no more than the bound is bad are refused all the same. One night in a thousand is once in
#: three years; `python -m benchmarks.parity` shows what it costs in bad rows that pass.
CHANCE = 1e-3
#: Standard errors from a figure to the end of its one-sided interval of that chance: 3.09.
ERRORS = NormalDist().inv_cdf(1 - CHANCE)


def most_of(rows: int, share: float) -> int:
    """Return how many of `rows` may be bad where at most `share` (0 to 1) of all such rows may.

    It is never fewer than `share` of `rows`. On few rows it is more: the largest count that such a share reaches by
    chance in more than `CHANCE` of all samples of so many rows (exact one-sided binomial test). Of 1,000 rows a share
    of 0.001 allows 5, of 100 rows 2. A share of 0 allows none.
    """
    # Here and not at the top: it takes half a second, and whoever only reads a bound has no need of it.
    from scipy.stats import binom

    return int(binom.isf(CHANCE, rows, share))
