"""Overlap: equality of texts, counts and lists, and the bounds that stop a run."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.input_files import InputFile, Part, SplitRows, join_parts
from pipeline.data.overlap import (
    Overlap,
    OverlapKind,
    Repeated,
    measure_overlap,
    near_copies,
    near_key,
    normalise,
    write_overlap,
)
from pipeline.data.reading import Split, read_file
from pipeline.errors import DataError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings
from pipeline.stages.validate import validate
from tests.support.published import SMALL, Row, pairs, reviews, write_pairs, write_reviews
from tests.support.suites import with_rules

pytestmark = pytest.mark.usefixtures("no_rule_pages")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Return settings whose suites have one rule: overlap is measured beside them."""
    return with_rules(settings, tmp_path / "overlap", "there are at least as many rows as the recipe asks for")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("재밌어요", unicodedata.normalize("NFD", "재밌어요")),
        ("재미 있어요", "재미있어요"),
        ("재밌어요\r", " 재밌어요\u3000"),
        ("ㅋㅋㅋㅋㅋ 최고", "ㅋㅋ 최고"),
        ("최고!!!", "최고!!!!!!"),
    ],
)
def test_as_good_as_the_same(one: str, other: str) -> None:
    assert one != other
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), [("좋다", "싫다"), ("ㅋ", "ㅋㅋ"), ("1편", "11편"), ("좋다", "좋다.")])
def test_not_the_same(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def rows_of(recipe: Recipe, file: Path, split: str) -> SplitRows:
    return join_parts(split, [Part(InputFile(file.name, file, b""), read_file(recipe, file))])  # type: ignore[arg-type]


def measured(tmp_path: Path, train: list[Row], test: list[Row]) -> tuple[dict[str, Overlap], list[Repeated]]:
    recipe = load_recipe("nsmc", "embedded")
    write_reviews(tmp_path, train, test)
    files = {"train": "ratings_train.txt", "test": "ratings_test.txt"}
    splits = {split: rows_of(recipe, tmp_path / "nsmc" / name, split) for split, name in files.items()}
    found, listed = measure_overlap(recipe, splits)  # type: ignore[arg-type]
    write_overlap(recipe, listed, tmp_path / "overlap.tsv")
    return {item.name: item for item in found}, listed


def test_overlap_counts_and_lists_exact_and_normalised_rows(tmp_path: Path) -> None:
    train = [
        ("1", "정말 좋다", "1"),
        ("2", "정말좋다", "0"),
        ("3", "별로", "0"),
        ("4", "별로", "0"),
        ("5", "그냥", "1"),
    ]
    test = [("6", "별로", "0"), ("7", "그 냥", "0"), ("8", "새로운 말", "1")]
    found, listed = measured(tmp_path, train, test)
    counts = {name: (item.rows, item.exact, item.normalised) for name, item in found.items()}
    assert counts == {
        "test_in_train": (3, 1, 2),
        "train_two_labels": (5, 0, 2),
        "train_duplicates": (5, 1, 2),
        "test_two_labels": (3, 0, 0),
        "test_duplicates": (3, 0, 0),
    }
    assert [(item.kind, item.match, item.row, item.label, item.other, item.other_label) for item in listed] == [
        ("test_in_train", "exact", 2, "0", "ratings_train.txt:4", "0"),
        ("test_in_train", "normalised", 3, "0", "ratings_train.txt:6", "1"),
        ("two_labels", "normalised", 2, "1", "ratings_train.txt:3", "0"),
        ("two_labels", "normalised", 3, "0", "ratings_train.txt:2", "1"),
        ("duplicates", "normalised", 3, "0", "ratings_train.txt:2", "1"),
        ("duplicates", "exact", 5, "0", "ratings_train.txt:4", "0"),
    ]
    header, *lines = (tmp_path / "overlap.tsv").read_text("utf-8").splitlines()
    assert header == "kind\tmatch\tfile\tline\tlabel\tsame as\tits label\ttext"
    assert lines[0] == "test_in_train\texact\tratings_test.txt\t2\t0\tratings_train.txt:4\t0\t별로"
    assert len(lines) == len(listed)


def test_rows_of_the_test_file_are_compared_with_their_own_file(tmp_path: Path) -> None:
    train = [("1", "다른 글", "0"), ("2", "또 다른 글", "1")]
    test = [("3", "같은 말", "0"), ("4", "같은말", "0"), ("5", "같은 말", "1"), ("6", "같은 말", "1")]
    found, listed = measured(tmp_path, train, test)
    counts = {name: (item.exact, item.normalised) for name, item in found.items() if item.normalised}
    assert counts == {"test_two_labels": (3, 4), "test_duplicates": (2, 3)}
    assert [(item.kind, item.match, item.row, item.other, item.other_label) for item in listed] == [
        ("two_labels", "exact", 2, "ratings_test.txt:4", "1"),
        ("two_labels", "normalised", 3, "ratings_test.txt:4", "1"),
        ("two_labels", "exact", 4, "ratings_test.txt:2", "0"),
        ("two_labels", "exact", 5, "ratings_test.txt:2", "0"),
        # The first copy, whatever its label.
        ("duplicates", "normalised", 3, "ratings_test.txt:2", "0"),
        ("duplicates", "exact", 4, "ratings_test.txt:2", "0"),
        ("duplicates", "exact", 5, "ratings_test.txt:2", "0"),
    ]


def test_pair_is_the_same_in_either_order() -> None:
    assert near_key(("비가 온다", "비가 내린다")) == near_key(("비가내린다", "비가 온다"))
    assert near_key(("가", "나다")) != near_key(("가나", "다"))


def test_near_copies_are_found_among_other_rows() -> None:
    columns = ["text", "text_pair", "label"]
    rows = pd.DataFrame([("하나", "둘", 0), ("셋", "넷", 0), ("하나", "셋", 1)], columns=columns, index=[5, 6, 7])
    among = pd.DataFrame([("둘", "하 나", 1), ("하나", "넷", 0)], columns=columns, index=[9, 5])
    found = near_copies(rows, among, columns[:2])
    assert found.tolist() == [True, False, False]
    assert found.index.tolist() == [5, 6, 7]


def test_beyond_the_recipes_bounds_the_run_stops(make_job: Callable[..., Job], tmp_path: Path) -> None:
    train, test = reviews(60, 1), reviews(30, 5000)
    test += [(f"x{id}", f" {text}", "1") for id, text, _ in train[:4]]
    train += [(f"y{n}", "반반이다", str(n % 2)) for n in range(4)]
    train += [(f"z{n}", "또 같다", "1") for n in range(6)]
    write_reviews(tmp_path, train, test)
    words = {
        "test_in_train": "4 of 34 rows have a text that is in the train file",
        "two_labels": "4 of 70 rows have a text that also occurs with another label",
        "duplicates": "8 of 70 rows repeat an earlier text of their file",
    }
    with pytest.raises(DataError) as caught:
        validate(make_job(load_recipe("nsmc", "embedded", overrides=SMALL)), tmp_path)
    for key, found in words.items():
        assert re.search(rf"{found} \(normalised; exact: \d\); data\.overlap\.{key} allows", str(caught.value)), key
    generous = {f"data.overlap.{key}": 0.5 for key in words}
    made = validate(make_job(load_recipe("nsmc", "embedded", overrides=SMALL | generous)), tmp_path)
    listed = (made.path / "overlap.tsv").read_text("utf-8")
    assert {key: listed.count(f"\n{key}\t") >= 4 for key in words} == dict.fromkeys(words, True)


def test_swapped_pair_is_a_near_duplicate(make_job: Callable[..., Job], tmp_path: Path) -> None:
    recipe = load_recipe("klue-sts", "embedded", overrides=SMALL)
    first = pairs(1, "train")[0]
    swapped = first | {"guid": "swapped", "sentence1": first["sentence2"], "sentence2": first["sentence1"]}
    write_pairs(tmp_path, pairs(60, "train"), [*pairs(30, "dev"), swapped])
    made = validate(make_job(recipe), tmp_path)
    assert made.manifest.figures["overlap"]["test_in_train"] == 1
    # `in_train` is about exact texts.
    assert made.manifest.figures["test_in_train"] == 0


@pytest.mark.parametrize(
    ("normalised", "rows", "bound", "passed"),
    [(8, 100, 0.08, True), (9, 100, 0.08, False), (29, 100, 0.29, True), (30, 100, 0.29, False), (0, 0, 0.01, True)],
)
def test_overlap_at_its_bound_is_within_it(normalised: int, rows: int, bound: float, passed: bool) -> None:
    # By normalised texts, which include all exact matches.
    assert Overlap("duplicates", "train", rows, 0, normalised, bound).passed is passed


@pytest.mark.parametrize(
    ("kind", "split", "name"),
    [("test_in_train", "test", "test_in_train"), ("duplicates", "test", "test_duplicates"),
     ("two_labels", "train", "train_two_labels")],
)  # fmt: skip
def test_overlap_name_includes_the_split_if_shared(kind: OverlapKind, split: Split, name: str) -> None:
    assert Overlap(kind, split, 1, 0, 0, 0.1).name == name
