"""The result of the champion on one day: figures, level, and usable rows."""

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
from pipeline.recipes.loading import load_recipe

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")
ARRIVALS = REVIEWS.data.arrivals


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


@pytest.mark.parametrize(("right", "level"), [(34, "ok"), (20, "critical")])
def test_labels_that_were_merged_are_one_label(right: int, level: str) -> None:
    # Two of the champion's three labels are `negative` now. It was right about 85% of its test rows.
    assert ARRIVALS is not None
    now = ("negative", "negative", "positive")
    truth, answered = (0, 1, 0, 2, 2), (1, 0, 2, 2, 0)
    counts = (85, 85, 30, 170, 30)
    test = pd.DataFrame({"label": np.repeat(truth, counts), "prediction": np.repeat(answered, counts)})
    answers = np.eye(3)[np.repeat((0, 2, 2, 1), (right, 40 - right, right, 40 - right))]
    found = trial._compare(REVIEWS, ARRIVALS, now, test, day(*np.repeat([0, 1], 40)), answers)
    assert (found.found, found.usual, found.level) == (f"{right / 40:.1%} right", "84.8%", level)


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


def test_pairs_of_a_day_are_those_with_texts_and_a_score_in_range() -> None:
    def pair(guid: str, score: float | str, first: str | None = "하나") -> dict[str, Any]:
        return {"guid": guid, "source": "s", "sentence1": first, "sentence2": "둘", "labels": {"real-label": score}}

    items = [pair("a", 0.0), pair("b", 5.0), pair("c", 5.1), pair("d", -0.1), pair("e", "none"), pair("f", 1.0, None)]
    rows = trial._rows(PAIRS, InputFile("day.json", Path("day.json"), json.dumps(items).encode()))
    assert rows is not None
    assert (rows["id"].tolist(), rows["label"].tolist()) == (["a", "b"], [0.0, 5.0])


def test_accepted_day_gets_the_champions_label_numbers() -> None:
    three = REVIEWS.model_copy(update={"labels": ("negative", "positive", "new")})
    table = trial._as_test(three, ("positive", "negative"), day(0, 1, 2, 0), probabilities(1, 1, 0, 0))
    assert table is not None
    assert table.to_dict("list") == {"label": [1, 0, 1], "prediction": [1, 1, 0]}
    assert trial._as_test(three, ("positive", "negative"), day(2), probabilities(0)) is None


def test_accepted_day_of_scores_has_the_champions_scores() -> None:
    table = trial._as_test(PAIRS, (), day(1.0, 4.0), np.array([1.5, 2.5]))
    assert table is not None
    assert table.to_dict("list") == {"label": [1.0, 4.0], "prediction": [1.5, 2.5]}


@pytest.mark.parametrize(("gap", "level"), [(0.0, "ok"), (0.02, "warning"), (0.045, "warning"), (0.06, "critical")])
def test_fall_of_a_large_day_is_judged_by_its_size(gap: float, level: str) -> None:
    # On 50,000 rows, one point has a p-value of 1e-10 or less.
    assert ARRIVALS is not None
    rows, good = 50_000, round((0.88 - gap) * 50_000)
    test = pd.DataFrame({"label": np.zeros(50_000, int), "prediction": np.repeat([0, 1], [44_000, 6_000])})
    answers = probabilities(*np.repeat([0, 1], [good, rows - good]))
    assert trial._compare(REVIEWS, ARRIVALS, REVIEWS.labels, test, day(*np.zeros(rows, int)), answers).level == level


def test_large_rise_of_errors_is_judged_by_its_size() -> None:
    assert ARRIVALS is not None
    test = pd.DataFrame({"label": np.full(20_000, 2.5), "prediction": spread(0.5, 20_000)})
    levels = [
        trial._compare(PAIRS, ARRIVALS, (), test, day(*np.full(20_000, 2.5)), spread(error, 20_000)).level
        for error in (0.5, 0.53, 0.6)
    ]
    assert levels == ["ok", "warning", "critical"]
