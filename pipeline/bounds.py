"""Bounds on counts in small samples, with an allowance for chance."""

from __future__ import annotations

from statistics import NormalDist

#: Probability of refusing rows whose true share of bad rows is within the bound. With one run per day, 1 in 1,000 is
#: once in three years; `python -m benchmarks.parity` shows how many bad rows pass as a result.
CHANCE = 1e-3
#: Standard errors from a figure to the end of its one-sided interval at level `CHANCE`: 3.09.
ERRORS = NormalDist().inv_cdf(1 - CHANCE)


def most_of(rows: int, share: float) -> int:
    """Return the largest number of bad rows, among `rows`, that is plausible if the true share is `share` (0 to 1).

    This is the largest count that a sample of `rows` rows with that share reaches by chance with a probability above
    `CHANCE` (exact one-sided binomial test), and never below `share` of `rows`. A share of 0.001 allows 5 of 1,000 rows
    and 2 of 100 rows. A share of 0 allows none.
    """
    # Imported here because it takes half a second, and most importers of this module do not need it.
    from scipy.stats import binom

    return int(binom.isf(CHANCE, rows, share))
