"""Expected accuracy of a model on new rows, computed by hand, and the significance of a drop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.metrics.comparison import accuracy_fall as fall


def classes(*counts: tuple[str, int]) -> np.ndarray:
    return np.array([name for name, count in counts for _ in range(count)])


def right(*counts: tuple[int, int]) -> np.ndarray:
    """Return right or wrong by row, from the number right and the number of rows of each class."""
    return np.array([n < good for good, count in counts for n in range(count)])


def test_expected_share_and_probability_are_binomial() -> None:
    # Enough test rows to make their own uncertainty negligible.
    then = right((840_000, 1_000_000))
    for good in (460, 480, 495, 504, 530):
        share, chance = fall(right((good, 600)), classes(("a", 600)), then, classes(("a", 1_000_000)))
        assert share == pytest.approx(0.84, abs=1e-5)
        assert chance == pytest.approx(stats.binom.cdf(good, 600, 0.84), rel=0.35, abs=2e-3)


def test_chance_of_a_fall_by_hand() -> None:
    # 80 of 100 are smoothed to (80 + 1/2) / 101 = 0.797030. Expected right of 10 rows: 7.970297, with a variance of
    # 0.797030 * 0.202970 * (10 + 10^2 / 100) = 1.779507. 5.5 is 1.851856 standard deviations below: 0.032026.
    found = fall(right((5, 10)), classes(("a", 10)), right((80, 100)), classes(("a", 100)))
    assert found == pytest.approx((0.797030, 0.032026), abs=1e-6)


def test_chance_of_a_fall_adds_classes_up() -> None:
    # The same plus a class that is half right: 4 more rows, 2 expected, 1/2 * 1/2 * (4 + 4^2 / 50) = 1.08.
    names, then = classes(("a", 10), ("b", 4)), classes(("b", 50), ("a", 100))
    share, chance = fall(right((5, 10), (2, 4)), names, right((25, 50), (80, 100)), then)
    assert share == pytest.approx((7.970297 + 2) / 14, abs=1e-6)
    assert chance == pytest.approx(stats.norm.cdf((7.5 - 9.970297) / (1.779507 + 1.08) ** 0.5), abs=1e-6)


def test_fall_of_a_perfect_champion_is_not_impossible() -> None:
    share, chance = fall(right((9, 10)), classes(("a", 10)), right((50, 50)), classes(("a", 50)))
    assert share == pytest.approx(50.5 / 51)
    assert 0.1 < chance < 0.9


def test_a_small_test_file_leaves_more_open() -> None:
    day = right((470, 600)), classes(("a", 600))
    chances = [fall(*day, right((84 * n, 100 * n)), classes(("a", 100 * n)))[1] for n in (1, 10, 1000)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.05 > 1e-3 > chances[-1]


def test_another_mix_of_classes_is_no_fall() -> None:
    then, names = right((450, 500), (350, 500)), classes(("positive", 500), ("negative", 500))
    # Nine in ten of the positive rows are right, and there are hardly any others.
    share, chance = fall(right((504, 560), (28, 40)), classes(("positive", 560), ("negative", 40)), then, names)
    assert share == pytest.approx((0.9 * 560 + 0.7 * 40) / 600, abs=2e-3)
    assert chance > 0.4
    # On mostly negative rows, the same number right would exceed the expectation, and this many fewer are too few.
    assert fall(right((36, 40), (392, 560)), classes(("positive", 40), ("negative", 560)), then, names)[1] > 0.4
    assert fall(right((400, 560), (28, 40)), classes(("positive", 560), ("negative", 40)), then, names)[1] < 1e-6


def test_class_missing_in_the_test_file_is_ignored() -> None:
    share, chance = fall(right((0, 50)), classes(("new", 50)), right((9, 10)), classes(("old", 10)))
    assert np.isnan(share)
    assert chance == 1.0
    share, chance = fall(
        right((0, 50), (9, 10)), classes(("new", 50), ("old", 10)), right((90, 100)), classes(("old", 100))
    )
    assert share == pytest.approx(0.9, abs=0.01)
    assert chance > 0.3
