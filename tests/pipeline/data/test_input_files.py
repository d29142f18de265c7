"""Input files: which ones a run knows, and the file and line of a row."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.input_files import InputFile, InputFiles, Part, find_files, join_parts
from pipeline.data.reading import Broken, Reading
from pipeline.errors import DataError
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from tests.support.published import SMALL, reviews, write_reviews


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("nsmc", "embedded", overrides=SMALL)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_reviews(tmp_path, reviews(3, 1), reviews(3, 10))
    daily = tmp_path / "nsmc" / "daily"
    (daily / "2015-08-05.txt").parent.mkdir()
    for name in ("2015-08-01.txt", "2015-08-02.tsv", "2015-07-31.txt"):
        (daily / name).write_text(name)
    return tmp_path


def part(name: str, rows: list[int], broken: tuple[int, ...] = ()) -> Part:
    """Return a file with readable and broken rows at the given lines."""
    items = [Broken(row=row, rule="a rule", text="text") for row in broken]
    return Part(InputFile(name, Path(name), ""), Reading(pd.DataFrame({"row": rows}), items))


def names(found: InputFiles) -> list[str]:
    return [file.name.removeprefix("nsmc/daily/") for file in found.arrivals]


@pytest.mark.parametrize(
    ("cutoff", "known"),
    [
        (date(2015, 7, 31), []),
        (date(2015, 8, 1), ["2015-07-31.txt"]),
        (date(2015, 8, 2), ["2015-07-31.txt", "2015-08-01.txt"]),
        (date(2015, 8, 3), ["2015-07-31.txt", "2015-08-01.txt", "2015-08-02.tsv"]),
    ],
)
def test_arrivals_are_those_before_the_day_oldest_first(
    recipe: Recipe, data: Path, cutoff: date, known: list[str]
) -> None:
    found = find_files(recipe, data, cutoff)
    assert names(found) == known
    assert [str(file.date) for file in found.arrivals] == [name[:10] for name in known]
    assert {split: file.name for split, file in found.published.items()} == {
        "train": "nsmc/ratings_train.txt",
        "test": "nsmc/ratings_test.txt",
    }


@pytest.mark.parametrize(
    "name", ["2015-13-01.txt", "2015-8-1.txt", "2015-08-01", "x2015-08-01.txt", "2015-08-01.txt.gz"]
)
def test_name_that_is_no_date_is_not_read(recipe: Recipe, data: Path, name: str) -> None:
    (data / "nsmc" / "daily" / name).write_text("what?")
    found = find_files(recipe, data, date(2016, 1, 1))
    assert found.ignored == (f"nsmc/daily/{name}",)
    assert len(found.arrivals) == 3


def test_directory_named_as_a_day_is_not_read(recipe: Recipe, data: Path) -> None:
    (data / "nsmc" / "daily" / "2015-08-09.txt").mkdir()
    assert find_files(recipe, data, date(2016, 1, 1)).ignored == ("nsmc/daily/2015-08-09.txt",)


def test_day_with_two_files_raises_naming_both(recipe: Recipe, data: Path) -> None:
    (data / "nsmc" / "daily" / "2015-08-01.tsv").write_text("what?")
    with pytest.raises(DataError, match=r"2015-08-01\.tsv and .*2015-08-01\.txt have the same date; rule: one file"):
        find_files(recipe, data, date(2016, 1, 1))


def test_digest_is_that_of_the_content(recipe: Recipe, data: Path) -> None:
    before = find_files(recipe, data, date(2016, 1, 1))
    (data / "nsmc" / "daily" / "2015-08-01.txt").write_text("other")
    after = find_files(recipe, data, date(2016, 1, 1))
    changed = [one.digest != other.digest for one, other in zip(before.arrivals, after.arrivals, strict=True)]
    assert changed == [False, True, False]


def test_part_counts_broken_rows_up_to_the_last() -> None:
    assert (part("a", [2, 3, 5], (4,)).count, part("a", [2, 3, 5], (4,)).last) == (4, 5)
    assert part("a", [2, 3], (4, 6)).last == 6
    assert (part("a", []).count, part("a", []).last) == (0, 0)


def test_row_maps_to_its_file_and_line() -> None:
    split = join_parts("train", [part("a", [2, 3], (4,)), part("b", []), part("c", [2, 5])])
    # Row numbers of the second file continue after the last line of the first, broken or not.
    assert split.rows["row"].tolist() == [2, 3, 6, 9]
    places = [split.place(row) for row in split.rows["row"]]
    assert [(file.name, line) for file, line in places] == [("a", 2), ("a", 3), ("c", 2), ("c", 5)]
    kept = split.without([3, 9])
    assert kept.rows["row"].tolist() == [2, 6]
    assert kept.rows.index.tolist() == [0, 1]
    assert kept.place(6)[0].name == "c"
