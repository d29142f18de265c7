"""Power of a comparison of two models: the losses that it notices, and how often it refuses an equally good model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from pipeline.store.figures import Estimate

NORMAL = NormalDist()
#: Probability with which the gate refuses a model that is worse by exactly the margin (`Task.difference`).
CAUGHT = 0.95
#: Standard errors from a difference to the lower end of its interval.
ERRORS = NORMAL.inv_cdf(CAUGHT)
RARELY, OFTEN = 1e-3, 0.4


@dataclass(frozen=True)
class Power:
    """What a comparison with a margin can tell, by the normal approximation of its interval.

    `even` is the true loss with which a model passes with a probability of 50% (negative: a gain), `refused` the
    probability that an equally good model is refused. A loss of the margin is refused with a probability of 95%.
    """

    even: float
    refused: float


def power_of(estimate: Estimate, margin: float) -> Power | None:
    """Return the power of a comparison with this interval of the difference, or None if the interval has no width."""
    width = estimate.value - estimate.low
    # Not `width <= 0`, which NaN would pass.
    if not width > 0:
        return None
    return Power(even=margin - width, refused=NORMAL.cdf(ERRORS * (1 - margin / width)))


def power_sentence(estimate: Estimate, bound: float) -> str | None:
    """Return which losses a comparison detects, as a sentence; `bound` is minus the margin. None if unknown."""
    power = power_of(estimate, -bound)
    if power is None:
        return None
    side = "worse" if power.even >= 0 else "better"
    return (
        f"A model that is worse by {-bound:g} is refused with a probability of {CAUGHT:.0%}, one that is {side} by "
        f"{abs(power.even):.4f} with 50%, and an equally good one in {nights(power.refused)}."
    )


def nights(probability: float) -> str:
    """Return a probability per night in words, such as "1 of 40 nights"."""
    if probability < RARELY:
        return f"less than 1 of {1 / RARELY:,.0f} nights"
    return f"1 of {round(1 / probability)} nights" if probability < OFTEN else f"{probability:.0%} of all nights"
