"""Expected accuracy of the champion on a day, computed by hand, and the significance of a drop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.data.input_files import InputFile
from pipeline.evaluation import champion_trial as trial
from pipeline.evaluation.champion_trial import fall
from pipeline.recipes.loading import load_recipe

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")
ARRIVALS = REVIEWS.data.arrivals


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


# --- the result of a day ---


def day(*labels: float) -> pd.DataFrame:
    return pd.DataFrame({"label": list(labels)})


def probabilities(*numbers: int) -> np.ndarray:
    return np.eye(2)[list(numbers)]


@pytest.mark.parametrize(
    ("right_of_100", "level"), [(80, "ok"), (74, "ok"), (70, "warning"), (66, "warning"), (62, "critical")]
)
def test_measure_of_a_day_says_share_and_level(right_of_100: int, level: str) -> None:
    # 8,000 of 10,000 right: 80 of 100 rows are expected, with a standard deviation of 4.02. A probability of 1% is 2.33
    # standard deviations below, one in 10,000 is 3.72 below.
    assert ARRIVALS is not None
    labels = np.zeros(100, int)
    test = pd.DataFrame({"label": np.zeros(10_000, int), "prediction": np.repeat([0, 1], [8000, 2000])})
    answers = probabilities(*np.repeat([0, 1], [right_of_100, 100 - right_of_100]))
    found = trial._compare(REVIEWS, ARRIVALS, REVIEWS.labels, test, day(*labels), answers)
    assert (found.name, found.found, found.usual) == ("champion", f"{right_of_100}.0% right", "80.0%")
    assert found.level == level


def test_measure_of_a_day_takes_labels_by_name() -> None:
    # The champion has the labels in the other order, in its answers and in its own test file.
    assert ARRIVALS is not None
    other = ("positive", "negative")
    test = pd.DataFrame({"label": np.repeat([0, 1], 100), "prediction": np.repeat([0, 1, 0], [100, 50, 50])})
    rows, answers = day(*np.repeat([0, 1], 40)), probabilities(*np.repeat([1, 0, 0], [20, 20, 40]))
    found = trial._compare(REVIEWS, ARRIVALS, other, test, rows, answers)
    # On its test file, all positive and half of the negative rows were right, and so they are here.
    assert (found.found, found.usual, found.level) == ("75.0% right", "74.8%", "ok")


def spread(deviation: float, rows: int) -> np.ndarray:
    """Return normally distributed scores around 2.5."""
    return 2.5 + deviation * stats.norm.ppf((np.arange(rows) + 0.5) / rows)


@pytest.mark.parametrize(
    ("error", "level"), [(0.3, "ok"), (0.59, "ok"), (0.61, "warning"), (0.66, "warning"), (0.7, "critical")]
)
def test_measure_of_scores_says_mean_error_and_level(error: float, level: str) -> None:
    # By the rank-sum test, 0.6 instead of 0.5 has a probability of 1%, and 0.68 of 1 in 10,000. Smaller errors pass.
    assert ARRIVALS is not None
    test = pd.DataFrame({"label": np.full(400, 2.5), "prediction": spread(0.5, 400)})
    found = trial._compare(PAIRS, ARRIVALS, (), test, day(*np.full(200, 2.5)), spread(error, 200))
    # The mean absolute deviation of a normal distribution is sqrt(2 / pi) of its standard deviation.
    assert found.found == f"mean error {0.7979 * error:.2f}"
    assert (found.name, found.usual, found.level) == ("champion", "0.40", level)


def test_pairs_of_a_day_are_those_with_texts_and_a_score_in_range(tmp_path: Path) -> None:
    def pair(guid: str, score: float | str, first: str | None = "하나") -> dict[str, Any]:
        return {"guid": guid, "source": "s", "sentence1": first, "sentence2": "둘", "labels": {"real-label": score}}

    items = [pair("a", 0.0), pair("b", 5.0), pair("c", 5.1), pair("d", -0.1), pair("e", "none"), pair("f", 1.0, None)]
    (tmp_path / "day.json").write_text(json.dumps(items), encoding="utf-8")
    rows = trial._rows(PAIRS, InputFile("day.json", tmp_path / "day.json", ""))
    assert rows is not None
    assert (rows["id"].tolist(), rows["label"].tolist()) == (["a", "b"], [0.0, 5.0])
