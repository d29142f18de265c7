"""The simulation of the gate's power, checked against closed forms that use no code of the gate."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from scipy.stats import binom

from benchmarks.gate_power import CASES, PAIRED, Case, loss_that_passes, measure, passed_share
from pipeline.evaluation.gate_power import power_of
from pipeline.store.figures import Estimate

NORMAL = NormalDist()
NIGHTS = 200
#: A result this unlikely is no chance.
CHANCE = 1e-4
REVIEWS = Case("nsmc", "full", "150,000 reviews", 9_000, apart=0.08)
PAIRS = Case("klue-sts", "embedded", "5,749 pairs", 575, quality=0.55, alike=0.85)


def error_of(case: Case, loss: float) -> float:
    """Return the standard error of the difference: of paired shares, or of two correlations with the same labels.

    The second is the asymptotic variance of Olkin and Siotani (1976).
    """
    if case.apart:
        return math.sqrt((case.apart - loss**2) / case.rows)
    ours, theirs, alike = case.quality - loss, case.quality, case.alike
    rest = 1 - ours**2 - theirs**2
    shared = alike * rest - ours * theirs * (rest - alike**2) / 2
    return math.sqrt(((1 - ours**2) ** 2 + (1 - theirs**2) ** 2 - 2 * shared) / case.rows)


def passes(case: Case, loss: float) -> float:
    """Return the probability that a model that is worse by `loss` passes: its lower end is 1.645 errors lower."""
    return NORMAL.cdf((case.load().gate.margin - loss) / error_of(case, loss) - NORMAL.inv_cdf(0.95))


@pytest.mark.parametrize("loss", [0.0, 0.004, 0.005, 0.006, 0.01])
def test_reviews_pass_as_often_as_the_closed_form_says(loss: float) -> None:
    found, wanted = round(NIGHTS * passed_share(REVIEWS, loss, NIGHTS)), passes(REVIEWS, loss)
    low, high = binom.ppf([CHANCE, 1 - CHANCE], NIGHTS, [max(0.0, wanted - 0.01), min(1.0, wanted + 0.01)])
    assert low <= found <= high, (found / NIGHTS, wanted)


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.08])
def test_pairs_pass_as_often_as_the_closed_form_says(loss: float) -> None:
    # The interval and the normal approximation are rougher on 575 rows.
    nights = round(PAIRED * NIGHTS)
    found, wanted = round(nights * passed_share(PAIRS, loss, NIGHTS)), passes(PAIRS, loss)
    low, high = binom.ppf([CHANCE, 1 - CHANCE], nights, [max(0.0, wanted - 0.03), min(1.0, wanted + 0.03)])
    assert low <= found <= high, (found / nights, wanted)


def test_losses_that_pass_are_the_closed_forms() -> None:
    margin, error = REVIEWS.load().gate.margin, error_of(REVIEWS, 0.0)
    # Four standard errors of a median, and of a 95% quantile.
    even = pytest.approx(margin - NORMAL.inv_cdf(0.95) * error, abs=4 * 1.25 * error / math.sqrt(NIGHTS))
    assert loss_that_passes(REVIEWS, 0.5, NIGHTS) == even
    assert loss_that_passes(REVIEWS, 0.05, NIGHTS) == pytest.approx(margin, abs=4 * 2.1 * error / math.sqrt(NIGHTS))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.recipe}-{case.profile}-{case.data}")
def test_margins_allow_for_both_errors_at_five_percent(case: Case) -> None:
    """A loss of the margin passes in 5% of the comparisons by the rule, an equally good model is refused in 5%."""
    assert 1 - passes(case, 0.0) <= 0.05
    # The formula of the report is the same.
    width = NORMAL.inv_cdf(0.95) * error_of(case, 0.0)
    power = power_of(Estimate(value=0.0, low=-width, high=width), case.load().gate.margin)
    assert power is not None
    assert power.refused == pytest.approx(1 - passes(case, 0.0))
    assert power.even == pytest.approx(case.load().gate.margin - width)


def test_measured_case_names_its_recipe_and_margin() -> None:
    found = measure(REVIEWS, 50)
    assert (found["recipe"], found["rows"], found["margin"], found["nights"]) == ("nsmc", 9_000, 0.01, 50)
    assert 0 < found["even"] < found["caught"] < 0.015
    assert found["refused"] <= 0.2
