"""The comparison of two models: by the lower end of the difference, with enough rows."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.stats import bootstrap, pearsonr

from pipeline.evaluation.promotion_gate import compare
from pipeline.recipes.loading import load_recipe
from pipeline.store.checks import RivalName
from pipeline.tasks.registry import task_of
from tests.support.properties import given, settings
from tests.support.verdicts import difference_quantile, judged, two_scorers, with_margin, won_and_lost

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")
TWENTY_DRAWS = settings(derandomize=True, max_examples=20)

#: Wins, losses and rows of a challenger, and the lower and upper end of the difference in rows: the 5% and 95%
#: quantiles of the exact distribution (`difference_quantile`).
COMPARED = [
    (0, 3, 200, -6, 0),
    (2, 3, 200, -5, 3),
    (10, 4, 300, 0, 13),
    (30, 50, 1000, -35, -5),
    (0, 0, 200, -2, 2),
    (0, 0, 30, -2, 2),
]


@pytest.mark.parametrize(("wins", "losses", "rows", "low", "high"), COMPARED)
def test_compare_judges_the_lower_end_of_the_interval(wins: int, losses: int, rows: int, low: int, high: int) -> None:
    sides = won_and_lost(wins, losses, rows)
    check = compare(with_margin(REVIEWS, 0.02), *sides, "champion")
    found = check.estimate
    assert found is not None
    assert found.model_dump() == pytest.approx(
        {"value": (wins - losses) / rows, "low": low / rows, "high": high / rows}
    )
    assert check.value == found.low
    assert (check.kind, check.bound, check.rows, check.fewest) == ("comparison", -0.02, rows, 100)
    assert check.passed == (low / rows >= -0.02)
    assert check.name == f"accuracy against the champion ({(wins - losses) / rows:+.4f}), at worst"


def test_compare_refuses_three_losses_in_two_hundred() -> None:
    # The difference, -0.015, is within the margin, but the lower end of its interval, -0.03, is not.
    check = compare(with_margin(REVIEWS, 0.02), *won_and_lost(0, 3, 200), "champion")
    decision = judged(REVIEWS, check)
    assert not decision.promote
    assert decision.reason == "Refused: accuracy against the champion (-0.0150), at worst -0.0300 (margin 0.02)."


@pytest.mark.parametrize(("wins", "losses", "rows", "low", "high"), [item for item in COMPARED if item[3] < 0])
def test_compare_passes_at_the_margin_and_not_beyond(wins: int, losses: int, rows: int, low: int, high: int) -> None:
    sides = won_and_lost(wins, losses, rows)
    reached = compare(with_margin(REVIEWS, 1.0), *sides, "champion").value
    at, beyond = (with_margin(REVIEWS, margin) for margin in (-reached, math.nextafter(-reached, 0.0)))
    assert compare(at, *sides, "champion").passed
    assert not compare(beyond, *sides, "champion").passed


@TWENTY_DRAWS
@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 200))
def test_compare_follows_the_exact_lower_end(wins: int, losses: int, rows: int) -> None:
    # With 1,000 draws, the 5% quantile lies between the exact 2.5% and 7.5% quantiles (3.6 standard deviations).
    low, high = (difference_quantile(wins, losses, rows, share) for share in (0.025, 0.075))
    sides = won_and_lost(wins, losses, rows)
    generous, strict = (with_margin(REVIEWS, -bound + slack) for bound, slack in ((low, 1e-9), (high, -1e-9)))
    assert compare(generous, *sides, "champion").passed
    assert not compare(strict, *sides, "champion").passed


@pytest.mark.parametrize("rival", ["champion", "best"])
def test_compare_needs_thirty_rows(rival: RivalName) -> None:
    for recipe, rows in product((REVIEWS, PAIRS), (29, 30)):
        scores = np.linspace(0, 5, rows) if recipe is PAIRS else np.arange(rows) % 2
        check = compare(with_margin(recipe, 0.5), scores, scores, scores, rival)
        decision = judged(recipe, check)
        assert check.passed == decision.promote == (rows == 30)
        if rows == 29:
            assert decision.needs_person
            assert decision.reason == (
                "Refused: there are only 29 gate rows, and the comparison needs 30; a person must approve the model (a "
                "larger data.gate_share gives more rows to later models)."
            )


def test_compare_asks_for_rows_enough_for_the_margin() -> None:
    # Agreement on 30 rows leaves an uncertainty of two rows; on 200 also of two, which is a smaller share.
    for rows, margin, passes in ((30, 0.06, False), (30, 0.07, True), (200, 0.009, False), (200, 0.011, True)):
        check = compare(with_margin(REVIEWS, margin), *won_and_lost(0, 0, rows), "champion")
        assert check.passed == passes
        assert judged(REVIEWS, check).needs_person == (not passes)


@TWENTY_DRAWS
@given(st.floats(0.004, 0.06))
def test_equal_models_pass_on_the_rows_that_are_needed(margin: float) -> None:
    needed = task_of(REVIEWS).rows_needed(margin)
    enough, fewer = (won_and_lost(0, 0, rows) for rows in (needed, needed - 1))
    assert compare(with_margin(REVIEWS, margin), *enough, "champion").passed
    assert not compare(with_margin(REVIEWS, margin), *fewer, "champion").passed


def test_compare_without_a_row_needs_a_person() -> None:
    for recipe in (REVIEWS, PAIRS):
        decision = judged(recipe, compare(recipe, *(np.zeros(0, dtype=int),) * 3, "champion", 400))
        assert (decision.promote, decision.needs_person) == (False, True)
        assert decision.reason.startswith("Refused: only 0 of 400 gate rows were held out of training for every")


@pytest.mark.parametrize("nothing", [2.5, math.nan], ids=["constant", "NaN"])
@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_compare_without_a_value_is_refused(side: str, nothing: float) -> None:
    scores, alike = np.linspace(0, 5, 50), np.full(50, nothing)
    sides = (alike, scores) if side == "challenger" else (scores, alike)
    check = compare(PAIRS, scores, *sides, "champion")
    assert math.isnan(check.value)
    assert not check.passed
    assert judged(PAIRS, check).reason == (
        "Refused: Pearson r against the champion has no value, for example because all answers are equal "
        "(at least -0.08 is needed)."
    )


def test_compare_of_scores_takes_ours_minus_theirs() -> None:
    generator = np.random.default_rng(1)
    labels = generator.uniform(0, 5, 300)
    near, far = (labels + generator.normal(0, noise, 300) for noise in (0.5, 2.0))
    recipe = with_margin(PAIRS, 0.01)
    better, worse = compare(recipe, labels, near, far, "best"), compare(recipe, labels, far, near, "best")
    difference = np.corrcoef(labels, near)[0, 1] - np.corrcoef(labels, far)[0, 1]
    assert (better.passed, worse.passed) == (True, False)
    assert better.name == f"Pearson r against the best before it ({difference:+.4f}), at worst"
    assert worse.name == f"Pearson r against the best before it ({-difference:+.4f}), at worst"
    assert 0 < better.value < difference < -worse.value


# --- the difference itself ---


def test_differences_are_the_same_on_every_machine() -> None:
    labels, near, far = two_scorers()
    expected = {"value": 0.012840650547110588, "low": -0.04488239389966098, "high": 0.06923909703497846}
    assert task_of(PAIRS).difference(labels, near, far) == pytest.approx(expected, rel=1e-9)
    expected = {"value": 0.0025, "low": -0.0005, "high": 0.00545}
    assert task_of(REVIEWS).difference(*won_and_lost(700, 650, 20_000)) == pytest.approx(expected, rel=1e-9)
    # Between 8 and 9 losses, so that a change of half a row in either count would move it.
    expected = {"value": -5 / 30, "low": -8.05 / 30, "high": -1 / 30}
    assert task_of(REVIEWS).difference(*won_and_lost(0, 5, 30)) == pytest.approx(expected, rel=1e-9)


def test_interval_of_a_difference_of_r_is_scipys_bootstrap() -> None:
    labels, near, far = two_scorers()

    def difference(labels: Any, near: Any, far: Any, axis: int = -1) -> Any:
        return pearsonr(labels, near, axis=axis).statistic - pearsonr(labels, far, axis=axis).statistic

    found = task_of(PAIRS).difference(labels, near, far)
    wanted = bootstrap(
        (labels, near, far),
        difference,
        paired=True,
        n_resamples=4000,
        confidence_level=0.9,
        method="percentile",
        rng=1,
    )
    within = 0.25 * wanted.standard_error
    assert (found["low"], found["high"]) == pytest.approx(tuple(wanted.confidence_interval), abs=within)


@pytest.mark.parametrize(
    ("wins", "losses", "rows"), [(0, 3, 200), (5, 5, 200), (30, 50, 1000), (0, 0, 10), (1, 0, 30), (9, 1, 10)]
)
def test_difference_of_labels_is_the_exact_one(wins: int, losses: int, rows: int) -> None:
    found = task_of(REVIEWS).difference(*won_and_lost(wins, losses, rows))
    assert found["value"] == pytest.approx((wins - losses) / rows)
    for name, share in (("low", 0.05), ("high", 0.95)):
        nearest = [difference_quantile(wins, losses, rows, chance) for chance in (share - 0.02, share + 0.02)]
        assert nearest[0] - 1e-9 <= found[name] <= nearest[1] + 1e-9
