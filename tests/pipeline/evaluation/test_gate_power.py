"""The sentence about the power of a comparison."""

from __future__ import annotations

import math

import pytest

from pipeline.evaluation.gate_power import nights, power_sentence
from pipeline.store.figures import Estimate


def sentence(width: float, margin: float) -> str | None:
    return power_sentence(Estimate(value=0.003, low=0.003 - width, high=0.0), -margin)


def test_sentence_names_margin_even_loss_and_refused_nights() -> None:
    # Phi(1.645 * (1 - 0.012 / 0.0055)) = 0.0259
    assert sentence(0.0055, 0.012) == (
        "A model that is worse by 0.012 is refused with a probability of 95%, one that is worse by 0.0065 with 50%, "
        "and an equally good one in 1 of 39 nights."
    )


def test_margin_below_the_interval_asks_for_a_gain() -> None:
    # Phi(1.645 * (1 - 0.5)) = 0.795
    told = sentence(0.02, 0.01)
    assert told is not None
    assert "one that is better by 0.0100 with 50%, and an equally good one in 79% of all nights." in told


@pytest.mark.parametrize("width", [0.0, math.nan])
def test_interval_without_width_says_nothing(width: float) -> None:
    assert sentence(width, 0.01) is None


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.0009, "less than 1 of 1,000 nights"),
        (0.001, "1 of 1000 nights"),
        (0.025, "1 of 40 nights"),
        (0.39, "1 of 3 nights"),
        (0.4, "40% of all nights"),
    ],
)
def test_probability_is_told_in_nights(probability: float, words: str) -> None:
    assert nights(probability) == words
