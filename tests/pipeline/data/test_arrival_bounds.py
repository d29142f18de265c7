"""Bounds of arrivals, just below and just above: shares, factors, and probabilities computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.bounds import most_of
from pipeline.data import arrival_checks as arrivals
from pipeline.data.arrival_checks import Arrival, Measure
from pipeline.data.formats import Reading
from pipeline.data.input_files import InputFile, Part
from pipeline.recipes.data_schema import ArrivalsSpec, Chances, Factors, Level, Shares
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.tasks.registry import task_of
from pipeline.tasks.task import more_in_first

FILE = InputFile("day", Path("day"), b"")


def recipe_of(name: str, **bounds: Any) -> tuple[Recipe, ArrivalsSpec]:
    """Return the recipe, with these bounds in place of those of nsmc's arrivals (klue-sts has none)."""
    spec = load_recipe("nsmc", "embedded").data.arrivals
    assert spec is not None
    return load_recipe(name, "embedded"), spec.model_copy(update=bounds)


def around(chance: float) -> list[tuple[Chances, Level]]:
    """Return bounds by which this probability is just ok, just a warning, and just critical."""
    above, below = chance * 1.001, chance * 0.999
    return [
        (Chances(warning=below, critical=below / 2, effect=0.01), "ok"),
        (Chances(warning=above, critical=below, effect=0.01), "warning"),
        (Chances(warning=above, critical=above, effect=0.01), "critical"),
    ]


def table(unknown: list[int], words: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"unknown": unknown, "words": words})


# --- levels ---


@pytest.mark.parametrize("rows", [9, 40, 300, 10_000])
def test_share_allows_the_rows_that_chance_explains(rows: int) -> None:
    bounds = Shares(warning=0.05, critical=0.3)
    warning, critical = most_of(rows, 0.05), most_of(rows, 0.3)
    levels = [arrivals.level_of_rows(bounds, count, rows) for count in (warning, warning + 1, critical, critical + 1)]
    assert levels == ["ok", "warning", "warning", "critical"]


@pytest.mark.parametrize(
    ("chance", "level"),
    [(1e-3, "ok"), (0.99e-3, "warning"), (1e-6, "warning"), (0.99e-6, "critical"), (math.nan, "critical")],
)
def test_chance_at_its_bound_is_within_it(chance: float, level: Level) -> None:
    assert Chances(warning=1e-3, critical=1e-6, effect=0.1).level_of(chance, 0.1) == level


@pytest.mark.parametrize(("effect", "level"), [(0.0999, "warning"), (0.1, "critical"), (math.nan, "critical")])
def test_small_effect_is_never_critical(effect: float, level: Level) -> None:
    assert Chances(warning=1e-3, critical=1e-6, effect=0.1).level_of(1e-300, effect) == level


@pytest.mark.parametrize(
    ("levels", "worst"),
    [
        ((), "ok"),
        (("ok", "ok"), "ok"),
        (("ok", "warning", "ok"), "warning"),
        (("critical", "warning", "ok"), "critical"),
        (("ok", "critical"), "critical"),
    ],
)
def test_arrival_is_as_bad_as_its_worst_measure(levels: tuple[Level, ...], worst: Level) -> None:
    measures = tuple(
        Measure(name=f"figure {n}", found=str(n), usual="0", level=level) for n, level in enumerate(levels)
    )
    arrival = Arrival(file="day.txt", date="2015-08-01", sha256="", rows=3, measures=measures)
    assert arrival.level == worst
    named = [f"figure {n}: {n} (usual: 0)" for n, level in enumerate(levels) if level == "warning"]
    assert arrival.sentence("warning") == f"day.txt: {'; '.join(named)}"


# --- shares of rows ---


@pytest.mark.parametrize(
    ("bad", "rows", "level"),
    # Of a Poisson table: P(X >= 6 | 1) = 0.0006, P(X >= 10 | 3.1) = 0.0014 and P(X >= 11 | 3.1) = 0.0004.
    [
        (1, 194, "ok"),
        (1, 20, "ok"),
        (5, 199, "ok"),
        (6, 199, "critical"),
        (10, 620, "ok"),
        (11, 620, "critical"),
        (0, 0, "ok"),
    ],
)
def test_unusable_rows_follow_the_quarantine_bound(bad: int, rows: int, level: Level) -> None:
    recipe, _ = recipe_of("nsmc")
    assert recipe.data.quarantine == 0.005
    part = Part(FILE, Reading(pd.DataFrame({"row": range(rows), "text": "하나"}), ()))
    numbers = pd.DataFrame({"number": [math.nan] * bad + [1.0] * (rows - bad)})
    measure = arrivals._usable(recipe, part, numbers)
    assert (measure.level, measure.found) == (level, f"{bad:,} of {rows:,}")
    assert measure.usual == f"at most {most_of(rows, 0.005)}, by 0.5%"


# Of 100 rows, 13 at 5% and 45 at 30% have a probability above 1 in 1,000; one more does not.
@pytest.mark.parametrize(
    ("again", "level"), [(0, "ok"), (13, "ok"), (14, "warning"), (45, "warning"), (46, "critical")]
)
def test_rows_seen_before_by_id_or_by_text(again: int, level: Level) -> None:
    _, spec = recipe_of("nsmc", seen=Shares(warning=0.05, critical=0.3))
    # Half of them match by id only, half by text only.
    rows = [(f"{n}", ("a",)) if n < again / 2 else ("new", (f"{n}",)) for n in range(again)]
    rows += [(f"new-{n}", (f"new-{n}",)) for n in range(100 - again)]
    known = arrivals._Known(
        ids={str(n) for n in range(50)}, texts={(str(n),) for n in range(50)}, test_ids=set(), test_texts=set()
    )
    measure = arrivals._seen(spec, pd.DataFrame(rows, columns=["id", "texts"]), known)
    assert (measure.found, measure.level, measure.usual) == (f"{again:.1f}%", level, "at most 5.0%")


@pytest.mark.parametrize(("of_test", "level"), [(9, "ok"), (10, "warning"), (20, "warning"), (21, "critical")])
def test_leaked_rows_match_by_id_or_normalised_text(of_test: int, level: Level) -> None:
    _, spec = recipe_of("nsmc")
    rows = [("t1", (f"{n}",)) if n % 2 else (f"{n}", ("좋 다!!!!",)) for n in range(of_test)]
    rows += [(f"new-{n}", (f"new-{n}",)) for n in range(100 - of_test)]
    known = arrivals._Known(ids=set(), texts=set(), test_ids={"t1"}, test_texts={"좋다!!"})
    measure = arrivals._leaked(spec, pd.DataFrame(rows, columns=["id", "texts"]), known)
    assert (measure.found, measure.level) == (f"{of_test:.1f}%", level)


def test_file_without_rows_has_zero_shares() -> None:
    assert arrivals._share("rows", [], Shares(warning=0.05, critical=0.3)).found == "0.0%"


# --- number of rows ---


@pytest.mark.parametrize(
    ("count", "level"),
    [
        (1200, "warning"),
        (1201, "critical"),
        (450, "ok"),
        (451, "warning"),
        (200, "ok"),
        (199, "warning"),
        (75, "warning"),
        (74, "critical"),
        (0, "critical"),
    ],
)
def test_rows_against_the_median_in_both_directions(count: int, level: Level) -> None:
    _, spec = recipe_of("nsmc", rows=Factors(warning=1.5, critical=4.0))
    measure = arrivals._rows(spec, count, [300, 10, 9000])
    assert (measure.found, measure.usual, measure.level) == (f"{count:,}", "300", level)


# --- chances ---


def chi_square(positive: int, negative: int, old_positive: int, old_negative: int) -> float:
    """Return the p-value of Pearson's chi-squared test (1900) for a two by two table, without correction."""
    total = positive + negative + old_positive + old_negative
    cross = positive * old_negative - negative * old_positive
    margins = (positive + negative) * (old_positive + old_negative)
    statistic = total * cross**2 / (margins * (positive + old_positive) * (negative + old_negative))
    return math.erfc(math.sqrt(statistic / 2))


def test_labels_by_pearsons_chi_square() -> None:
    new, old = pd.Series([1.0] * 60 + [0.0] * 40), pd.Series([1.0] * 240 + [0.0] * 60)
    for bounds, level in around(chi_square(60, 40, 240, 60)):
        recipe, spec = recipe_of("nsmc", labels=bounds)
        measure = arrivals.Measure.of(task_of(recipe).label_shift(new, old), spec.labels)
        assert (measure.name, measure.found, measure.usual) == ("labels", "60.0% positive", "80.0% positive")
        assert measure.level == level


def test_label_that_moved_most_is_named() -> None:
    # A third label, which occurred on no earlier day.
    recipe = load_recipe("nsmc", "embedded").model_copy(update={"labels": ("negative", "positive", "none")})
    _, spec = recipe_of("nsmc")
    new, old = pd.Series([0.0] * 10 + [1.0] * 15 + [2.0] * 75), pd.Series([0.0] * 50 + [1.0] * 50)
    measure = arrivals.Measure.of(task_of(recipe).label_shift(new, old), spec.labels)
    assert (measure.found, measure.usual, measure.level) == ("75.0% none", "0.0% none", "critical")


def test_labels_of_one_kind_alone_are_no_difference() -> None:
    recipe, spec = recipe_of("nsmc")
    ones = pd.Series([1.0] * 50)
    empty, other = pd.Series([], dtype=float), pd.Series([0.0] * 50)
    for new, level in ((ones, "ok"), (empty, "ok"), (other, "critical")):
        assert arrivals.Measure.of(task_of(recipe).label_shift(new, ones), spec.labels).level == level


def test_scores_by_welchs_test() -> None:
    # Against scores that are all 0, three new ones have two degrees of freedom: t is 2 / (1 / sqrt(3)).
    new, old = pd.Series([1.0, 2.0, 3.0]), pd.Series([0.0] * 40)
    t = 2 * math.sqrt(3)
    for bounds, level in around(1 - t / math.sqrt(2 + t * t)):
        recipe, spec = recipe_of("klue-sts", labels=bounds)
        measure = arrivals.Measure.of(task_of(recipe).label_shift(new, old), spec.labels)
        assert (measure.name, measure.found, measure.usual) == ("scores", "mean 2.00", "0.00")
        assert measure.level == level
    recipe, spec = recipe_of("klue-sts")
    shift = task_of(recipe).label_shift(pd.Series([0.0] * 40), pd.Series([1.0, 2.0]))
    assert arrivals.Measure.of(shift, spec.labels).level == "critical"


def test_lengths_by_the_test_of_kolmogorov_and_smirnov() -> None:
    # Of 4,000 each the distance is 0.05; the limit's series (Kolmogorov 1933) is within some percent of it.
    new, old = pd.Series([*range(100)] * 40), pd.Series([n + 5 for n in range(100)] * 40)
    effective = 0.05 * math.sqrt(2000)
    chance = 2 * sum((-1) ** (k - 1) * math.exp(-2 * k**2 * effective**2) for k in range(1, 9))
    for factor, level in ((0.9, "ok"), (1.1, "critical")):
        _, spec = recipe_of("nsmc", lengths=Chances(warning=chance * factor, critical=chance * factor, effect=0.05))
        measure = arrivals._lengths(spec, new, old)
        assert (measure.found, measure.usual) == ("50 characters, 1.0% empty", "54 characters, 0.0% empty")
        assert measure.level == level


def test_unknown_words_by_ranks_of_rows() -> None:
    new, old = table([1] * 12 + [0] * 28, [10] * 40), table([1] * 6 + [0] * 54, [10] * 60)
    # Mann and Whitney's U (1947): pairs in which the new row has more, plus half of the ties.
    u = 12 * 54 + (12 * 6 + 28 * 54) / 2
    ties = sum(count**3 - count for count in (18, 82))
    variance = 40 * 60 / 12 * (101 - ties / (100 * 99))
    chance = math.erfc((u - 40 * 60 / 2 - 0.5) / math.sqrt(variance) / math.sqrt(2)) / 2
    for bounds, level in around(chance):
        _, spec = recipe_of("nsmc", unknown=bounds)
        measure = arrivals._unknown(spec, new, old)
        assert (measure.found, measure.usual, measure.level) == ("3.00%", "1.00%", level)


def test_fewer_unknown_words_are_no_doubt() -> None:
    _, spec = recipe_of("nsmc")
    many, none = table([5] * 40, [10] * 40), table([0] * 40, [10] * 40)
    assert arrivals._unknown(spec, none, many).level == "ok"
    assert arrivals._unknown(spec, none, none).level == "ok"
    assert arrivals._unknown(spec, many, none).level == "critical"


def test_only_word_of_a_row_counts_as_one() -> None:
    _, spec = recipe_of("nsmc")
    assert arrivals._unknown(spec, table([1] * 40, [1] * 40), table([1] * 40, [2] * 40)).level == "critical"


def test_rows_without_words_have_no_unknown_words() -> None:
    _, spec = recipe_of("nsmc")
    measure = arrivals._unknown(spec, table([0, 1], [0, 1]), table([0, 0], [0, 0]))
    assert (measure.found, measure.usual, measure.level) == ("100.00%", "0.00%", "ok")


# --- effect sizes ---

DAYS = 14
DRAWN = np.random.default_rng(1)


def rows_with(positive: float, rows: int) -> pd.Series[float]:
    """Return labels of which this share is positive."""
    return pd.Series((np.arange(rows) < round(positive * rows)).astype(float))


@pytest.mark.parametrize("rows", [620, 10_000, 50_000])
@pytest.mark.parametrize(("shift", "level"), [(0.0, "ok"), (0.01, "below"), (0.07, "below"), (0.09, "critical")])
def test_labels_of_large_days_are_judged_by_their_shift(rows: int, shift: float, level: str) -> None:
    # By p-value alone, one point was critical at 50,000 rows.
    recipe, spec = recipe_of("nsmc")
    difference = task_of(recipe).label_shift(rows_with(0.8 - shift, rows), rows_with(0.8, DAYS * rows))
    found = arrivals.Measure.of(difference, spec.labels).level
    assert (found == "critical") == (level == "critical")
    if rows == 50_000:
        assert found == {"ok": "ok", "below": "warning", "critical": "critical"}[level]


@pytest.mark.parametrize(("shift", "level"), [(0.05, "warning"), (0.5, "critical")])
def test_scores_are_judged_by_their_share_of_the_range(shift: float, level: Level) -> None:
    recipe, spec = recipe_of("klue-sts")
    old = pd.Series(DRAWN.uniform(0, 4, 50_000))
    assert arrivals.Measure.of(task_of(recipe).label_shift(old + shift, old), spec.labels).level == level


@pytest.mark.parametrize(("longer", "level"), [(4, "warning"), (12, "critical")])
def test_lengths_of_large_days_are_judged_by_their_distance(longer: int, level: Level) -> None:
    # Of 100 equally frequent lengths, each that is moved out adds 0.01 to the distance.
    _, spec = recipe_of("nsmc")
    lengths = pd.Series([*range(100)] * 500)
    assert arrivals._lengths(spec, lengths + longer, lengths).level == level


@pytest.mark.parametrize(("odd", "level"), [(0.05, "warning"), (0.15, "critical")])
def test_unknown_words_of_large_days_are_judged_by_their_rows(odd: float, level: Level) -> None:
    # Cliff's delta is the share of rows with unknown words if no earlier row had any.
    _, spec = recipe_of("nsmc")
    count = round(odd * 20_000)
    new, old = table([1] * count + [0] * (20_000 - count), [5] * 20_000), table([0] * 50_000, [5] * 50_000)
    assert arrivals._unknown(spec, new, old).level == level


def test_ranks_give_mann_whitney_and_cliffs_delta() -> None:
    # Of nine pairs the first is larger in six and smaller in two.
    chance, delta = more_in_first([1, 3, 5], [2, 3, 0])
    assert delta == pytest.approx((6 - 2) / 9)
    assert 0.05 < chance < 0.5
