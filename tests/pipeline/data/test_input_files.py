"""Input files: which ones a run knows, and the file and line of a row."""

from __future__ import annotations

import os
import time
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.formats import Broken, Reading
from pipeline.data.input_files import SETTLE_SECONDS, InputFile, InputFiles, Part, find_files, join_parts, read_part
from pipeline.errors import DataError
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from tests.support.published import SMALL, reviews, write_pairs, write_reviews


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("nsmc", "embedded", overrides=SMALL)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that were to be waited for files to be finished; no test here waits."""
    waited: list[float] = []
    monkeypatch.setattr("pipeline.data.input_files.time.sleep", waited.append)
    return waited


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_reviews(tmp_path, reviews(3, 1), reviews(3, 10))
    daily = tmp_path / "nsmc" / "daily"
    (daily / "2015-08-05.txt").parent.mkdir()
    for name in ("2015-08-01.txt", "2015-08-02.txt", "2015-07-31.txt"):
        (daily / name).write_text(name)
        # Its upload ended an hour ago.
        os.utime(daily / name, (time.time() - 3600,) * 2)
    return tmp_path


def part(name: str, rows: list[int], broken: tuple[int, ...] = ()) -> Part:
    """Return a file with readable and broken rows at the given lines."""
    items = [Broken(row=row, rule="a rule", text="text") for row in broken]
    return Part(InputFile(name, Path(name), b""), Reading(pd.DataFrame({"row": rows}), items))


def names(found: InputFiles) -> list[str]:
    return [file.name.removeprefix("nsmc/daily/") for file in found.arrivals]


@pytest.mark.parametrize(
    ("cutoff", "known"),
    [
        (date(2015, 7, 31), []),
        (date(2015, 8, 1), ["2015-07-31.txt"]),
        (date(2015, 8, 2), ["2015-07-31.txt", "2015-08-01.txt"]),
        (date(2015, 8, 3), ["2015-07-31.txt", "2015-08-01.txt", "2015-08-02.txt"]),
    ],
)
def test_arrivals_are_those_before_the_day_oldest_first(
    recipe: Recipe, data: Path, cutoff: date, known: list[str]
) -> None:
    found = find_files(recipe, data, cutoff)
    assert names(found) == known
    assert [str(file.date) for file in found.arrivals] == [name[:10] for name in known]
    assert {split: file.name for split, (file,) in found.published.items()} == {
        "train": "nsmc/ratings_train.txt",
        "test": "nsmc/ratings_test.txt",
    }


@pytest.mark.parametrize(
    "name",
    [
        "2015-13-01.txt",
        "2015-8-1.txt",
        "2015-08-09",
        "x2015-08-09.txt",
        "2015-08-09.txt.gz",
        "2015-08-09.txt~",
        "2015-08-09.filepart",
        "2015-08-09.bak",
        "2015-08-09.TXT",
        "2015-08-09_txt",
        "２015-08-09.txt",
        ".2015-08-09.txt.Xy12Zw",
        # Beside the file of that day.
        "2015-08-01.md5",
        "2015-08-01.tsv",
        "2015-08-01.json",
    ],
)
def test_name_that_is_not_a_date_and_the_suffix_is_ignored(recipe: Recipe, data: Path, name: str) -> None:
    (data / "nsmc" / "daily" / name).write_text("what?")
    found = find_files(recipe, data, date(2016, 1, 1))
    assert found.ignored == (name,)
    assert names(found) == ["2015-07-31.txt", "2015-08-01.txt", "2015-08-02.txt"]


def test_directory_named_as_a_day_is_not_read(recipe: Recipe, data: Path) -> None:
    (data / "nsmc" / "daily" / "2015-08-09.txt").mkdir()
    assert find_files(recipe, data, date(2016, 1, 1)).ignored == ("2015-08-09.txt",)


def test_suffix_is_that_of_the_train_file(tmp_path: Path) -> None:
    arrivals = load_recipe("nsmc", "embedded").data.arrivals
    pairs = load_recipe("klue-sts", "embedded")
    recipe = pairs.model_copy(update={"data": pairs.data.model_copy(update={"arrivals": arrivals})})
    write_pairs(tmp_path, [], [])
    (tmp_path / "nsmc" / "daily").mkdir(parents=True)
    for suffix in ("json", "txt"):
        (tmp_path / "nsmc" / "daily" / f"2015-08-01.{suffix}").write_text("[]")
    found = find_files(recipe, tmp_path, date(2016, 1, 1))
    assert (names(found), found.ignored) == (["2015-08-01.json"], ("2015-08-01.txt",))


def test_day_that_cannot_be_read_is_a_fault_of_that_day(recipe: Recipe, data: Path) -> None:
    # A file that exists and whose content the system refuses, also for root.
    (data / "nsmc" / "daily" / "2015-08-03.txt").symlink_to("/proc/self/mem")
    found = find_files(recipe, data, date(2016, 1, 1))
    assert names(found)[-1] == "2015-08-03.txt"
    with pytest.raises(DataError, match=r"2015-08-03\.txt cannot be read: Input/output error; check its permissions"):
        read_part(recipe, found.arrivals[-1])


@pytest.mark.parametrize(("age", "looks_twice"), [(30, True), (-3600, True), (3600, False)])
def test_only_recently_changed_files_are_looked_at_twice(
    recipe: Recipe, data: Path, waits: list[float], age: float, looks_twice: bool
) -> None:
    changed = time.time() - age
    for file in (data / "nsmc" / "daily").iterdir():
        os.utime(file, (changed, changed))
    assert len(find_files(recipe, data, date(2016, 1, 1)).arrivals) == 3
    assert waits == ([SETTLE_SECONDS] if looks_twice else [])


@pytest.mark.parametrize("change", ["size", "time"])
def test_file_that_changes_between_two_looks_is_unfinished(
    recipe: Recipe, data: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file, now = data / "nsmc" / "daily" / "2015-08-01.txt", time.time()
    os.utime(file, (now, now))

    def upload(_: float) -> None:
        if change == "size":
            file.write_text(file.read_text() + "more")
        changed = now if change == "size" else now + 1
        os.utime(file, (changed, changed))

    monkeypatch.setattr("pipeline.data.input_files.time.sleep", upload)
    found = find_files(recipe, data, date(2016, 1, 1))
    assert (names(found), found.unfinished) == (["2015-07-31.txt", "2015-08-02.txt"], ("nsmc/daily/2015-08-01.txt",))
    monkeypatch.setattr("pipeline.data.input_files.time.sleep", lambda _: None)
    assert find_files(recipe, data, date(2016, 1, 1)).unfinished == ()


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


def test_directory_of_files_is_one_split(data: Path, recipe: Recipe) -> None:
    folder = data / "nsmc" / "parts"
    folder.mkdir(parents=True)
    for name in ("b.tsv", "a.tsv", ".c.tsv", "notes.md"):
        (folder / name).write_text("id\tdocument\tlabel\n1\t글\t0\n", encoding="utf-8")
    parts = recipe.data.model_copy(update={"train": "nsmc/parts"})
    found = find_files(recipe.model_copy(update={"data": parts}), data, date(2016, 1, 1))
    assert [file.name for file in found.published["train"]] == ["nsmc/parts/a.tsv", "nsmc/parts/b.tsv"]
    rows = join_parts("train", [read_part(recipe, file) for file in found.published["train"]])
    assert [rows.place(row)[0].path.name for row in rows.rows["row"]] == ["a.tsv", "b.tsv"]
    assert rows.shown == f"{folder} (2 files)"
    for name in ("a.tsv", "b.tsv"):
        (folder / name).unlink()
    with pytest.raises(DataError, match=r"parts is a directory without tsv files \(\.tsv\); add them"):
        find_files(recipe.model_copy(update={"data": parts}), data, date(2016, 1, 1))
