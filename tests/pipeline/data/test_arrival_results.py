"""The result of each arrival, and what later arrivals are compared with, on files in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data import arrival_checks as arrivals
from pipeline.data.arrival_checks import Arrival, Measure, check_arrivals
from pipeline.data.input_files import InputFile, Part, read_part
from pipeline.data.reading import Split
from pipeline.recipes.data_schema import Level
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.acceptances import Acceptance

pytestmark = pytest.mark.torch

WHY = Acceptance(by="kim", why="a campaign began")
ACCEPTABLE = ("rows seen before", "rows", "labels", "scores", "lengths", "unknown words", "champion")
FAULTS = ("reading", "unusable rows", "rows of the test file", "rows that break a rule")
RECIPE = load_recipe("nsmc", "embedded")
BROKEN = ["1\ta tab\ttoo\tmany"] * 9


def rows(first: int, count: int = 40) -> list[str]:
    """Return rows with the ids `first` and following, half of them positive."""
    return [f"{number}\t{number}번 영화 좋다\t{number % 2}" for number in range(first, first + count)]


def file(name: str, lines: Sequence[str], day: int | None = None) -> InputFile:
    content = "\n".join(("id\tdocument\tlabel", *lines, "")).encode()
    return InputFile(name, Path(f"/data/{name}"), content, date(2026, 3, day) if day else None)


def days(*contents: Sequence[str]) -> list[InputFile]:
    return [file(f"day {day}", lines, day) for day, lines in enumerate(contents, 1)]


def usual(count: int) -> list[list[str]]:
    return [rows(1000 * day) for day in range(1, count + 1)]


def check(
    files: Sequence[InputFile],
    doubts: Mapping[str, Sequence[Measure]] | None = None,
    accepted: Mapping[str, Acceptance] | None = None,
    recipe: Recipe = RECIPE,
) -> list[tuple[Arrival, Part | None]]:
    """Check the files after a train file with the ids 0 to 39 and a test file with the ids 9000 to 9039."""
    firsts: dict[Split, int] = {"train": 0, "test": 9000}
    published = {split: [read_part(recipe, file(split, rows(first)))] for split, first in firsts.items()}
    return check_arrivals(recipe, published, files, doubts or {}, None, accepted or {})


def measure_of(arrival: Arrival, name: str) -> Measure:
    (found,) = [item for item in arrival.measures if item.name == name]
    return found


def test_result_names_file_day_digest_and_rows() -> None:
    (day,) = days([*rows(1000), *BROKEN[:1]])
    ((arrival, part),) = check([day])
    assert (arrival.file, arrival.date, arrival.sha256) == ("day 1", "2026-03-01", day.digest)
    assert (arrival.rows, arrival.accepted, arrival.level) == (41, None, "ok")
    assert part is not None
    assert part.count == 41


def test_unreadable_file_is_rejected_with_its_reason() -> None:
    good, bad, fault = days(rows(1000), [], rows(2000))
    bad = replace(bad, content=b"no header\n")
    fault = replace(fault, fault="/data/day 3: the disk is broken")
    (_, (arrival, part), (other, _)) = check([good, bad, fault])
    assert (arrival.rows, part) == (0, None)
    (measure,) = arrival.measures
    assert (measure.name, measure.usual, measure.level) == ("reading", "it can be read", "critical")
    assert not measure.found.startswith(("/data", ":", " "))
    assert other.measures[0].found == "the disk is broken"


def test_file_without_readable_rows_is_not_compared() -> None:
    *_, (arrival, part) = check(days(*usual(3), BROKEN))
    assert [item.name for item in arrival.measures] == ["unusable rows", "rows seen before", "rows of the test file"]
    assert (arrival.level, part) == ("critical", None)


def test_broken_and_invalid_rows_are_unusable() -> None:
    ((arrival, _),) = check(days([*rows(1000), "1\tinvalid label\t7", *BROKEN]))
    assert measure_of(arrival, "unusable rows").found == "10 of 50"


def test_three_accepted_files_come_before_a_comparison() -> None:
    results = check(days(*usual(2), BROKEN, *usual(5)[2:]))
    compared = [len(arrival.measures) > 3 for arrival, _ in results]
    assert compared == [False, False, False, False, True, True]


def test_rows_of_any_earlier_file_are_seen_before() -> None:
    ids = [line.replace("번", "회") for line in rows(1000)]
    texts = [f"new-{line}" for line in rows(1000)]
    results = check(days(rows(1000), rows(2000), [*ids[:20], *rows(3000, 20)], [*texts[:20], *rows(4000, 20)], rows(0)))
    shares = [measure_of(arrival, "rows seen before").found for arrival, _ in results]
    assert shares == ["0.0%", "0.0%", "50.0%", "50.0%", "100.0%"]


def test_blank_texts_repeat_nothing() -> None:
    table = pd.DataFrame({"texts": [("a", " "), (" ", "\t"), ("", "")]})
    assert arrivals._told(table) == {("a", " ")}


def test_doubts_about_a_file_count_for_it_alone() -> None:
    doubt = Measure(name="champion", found="50.0% right", usual="80.0%", level="critical")
    (first, _), (second, part), (third, _) = check(days(*usual(3)), {"day 2": [doubt]})
    assert (first.level, second.level, third.level) == ("ok", "critical", "ok")
    assert (second.measures[-1], len(second.measures), part) == (doubt, 4, None)


def test_recipe_without_arrivals_checks_nothing() -> None:
    without = RECIPE.model_copy(update={"data": RECIPE.data.model_copy(update={"arrivals": None})})
    assert check(days(rows(1000)), recipe=without) == []
    # Not even the published files are read.
    assert check_arrivals(RECIPE, {}, [], {}, None, {}) == []


# --- acceptance ---


@pytest.mark.parametrize("name", [*ACCEPTABLE, *FAULTS])
def test_only_unusual_figures_can_be_accepted(name: str) -> None:
    def arrival(*levels: Level) -> Arrival:
        measures = tuple(Measure(name=name, found="1", usual="0", level=level) for level in levels)
        return Arrival(file="day", date="2026-03-01", sha256="", rows=3, measures=measures)

    assert arrival("critical").acceptable is (name in ACCEPTABLE)
    assert arrival("warning", "ok").acceptable
    excused = [arrivals._excused(item).level for item in arrival("critical", "warning", "ok").measures]
    assert excused == ["warning" if name in ACCEPTABLE else "critical", "warning", "ok"]


def test_arrival_with_every_unusual_figure_can_be_accepted() -> None:
    measures = tuple(Measure(name=name, found="1", usual="0", level="critical") for name in ACCEPTABLE)
    arrival = Arrival(file="day", date="2026-03-01", sha256="", rows=3, measures=measures, accepted=WHY)
    assert arrival.acceptable
    assert arrival.sentence("critical").endswith("; champion: 1 (usual: 0); accepted by kim: a campaign began")


def test_acceptance_turns_critical_into_a_warning() -> None:
    doubt = Measure(name="champion", found="50.0% right", usual="80.0%", level="critical")
    (arrival, part), (other, _) = check(days(*usual(2)), {"day 1": [doubt], "day 2": [doubt]}, {"2026-03-01": WHY})
    assert (arrival.level, arrival.accepted) == ("warning", WHY)
    assert part is not None
    assert (other.level, other.accepted) == ("critical", None)


# --- what is usual ---


def table(label: float, name: str = "a") -> pd.DataFrame:
    """Return 100 rows with this label."""
    columns = {"id": name, "texts": [(name,)], "joined": name, "number": label, "words": 5, "unknown": 0}
    return pd.concat([pd.DataFrame(columns)] * 100, ignore_index=True)


def test_known_keeps_recent_files_and_those_since_acceptance() -> None:
    known = arrivals._Known(set(), set(), set(), set())
    tables = [table(0, name) for name in "abcdef"]
    since = []
    for number, item in enumerate(tables):
        known.add(item, 2, accepted=number in (1, 2))
        since.append([next(iter(kept["id"])) for kept in known.since])
    assert since == [[], ["b"], ["c"], ["c", "d"], ["d", "e"], ["e", "f"]]
    assert [next(iter(kept["id"])) for kept in known.recent] == ["e", "f"]
    assert known.ids == set("abcdef")
    assert known.texts == {(name,) for name in "abcdef"}


@pytest.mark.parametrize(
    ("since", "label", "level"), [([], 1, "critical"), ([1], 1, "ok"), ([1], 0, "ok"), ([0, 0, 0], 1, "critical")]
)
def test_file_may_resemble_those_since_the_acceptance(since: list[float], label: float, level: Level) -> None:
    assert RECIPE.data.arrivals is not None
    tables = {"recent": [table(0)] * 3, "since": [table(number) for number in since]}
    known = arrivals._Known(set(), set(), set(), set(), **tables)
    found = arrivals._compared(RECIPE, RECIPE.data.arrivals, table(label), known)
    assert {item.name: item.level for item in found}["labels"] == level
    assert [item.name for item in found] == ["rows", "labels", "lengths", "unknown words"]


def test_milder_of_two_measures_counts() -> None:
    levels: tuple[Level, ...] = ("ok", "warning", "critical")
    measures = [Measure(name=level, found="1", usual="0", level=level) for level in levels]
    for number, one in enumerate(measures):
        for other in measures[number:]:
            assert arrivals.milder(one, other) == arrivals.milder(other, one) == one
    again = measures[0].model_copy(update={"found": "2"})
    assert arrivals.milder(again, measures[0]) == again
