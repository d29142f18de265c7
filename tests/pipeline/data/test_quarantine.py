"""Quarantine: rows are set aside with rule and line up to the bound; the remaining rows obey every rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import DataError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.validate import validate
from pipeline.store.artifacts import Store
from tests.support.published import pairs, reviews, write_pairs, write_reviews

MakeJob = Callable[..., Job]
#: Six of 60 to 70 rows may be set aside, and four of 30 (`pipeline.bounds.most_of`).
BOUND = {"data.min_train_rows": 40, "data.min_test_rows": 20, "data.quarantine": 0.02}


def aside(path: Path) -> list[dict[str, str]]:
    header, *lines = (path / "quarantine.tsv").read_text("utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (("77", "애매하다", "7"), "every label is one of the recipe's"),
        (("", "이름 없는 후기", "1"), "no id is empty"),
        (("3", "또 3번", "1"), "every id occurs once"),
        (("77", "긴" * 10_001, "1"), "a document has at most 10,000 characters"),
        (("77", "탭이\t하나 더", "1"), "2 tabs per line, for the columns id, document, label"),
    ],
)
def test_one_bad_review_is_set_aside(make_job: MakeJob, tmp_path: Path, row: tuple[str, str, str], rule: str) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND)
    write_reviews(tmp_path, [*reviews(30, 1), row, *reviews(30, 100)], reviews(30, 5000))
    made = validate(make_job(recipe), tmp_path)
    [found] = aside(made.path)
    assert (found["file"], found["line"], found["rule"]) == ("nsmc/ratings_train.txt", "32", rule)
    table = pd.read_parquet(made.path / "train.parquet")
    assert table["id"].tolist() == [id for id, _, _ in [*reviews(30, 1), *reviews(30, 100)]]
    assert made.manifest.figures["quarantined"] == 1
    assert made.manifest.figures["warnings"][0] == "1 row was set aside in quarantine.tsv"
    front = (made.path / "docs" / "index.html").read_text("utf-8")
    assert "set aside" in front
    assert row[1][:30].replace("\t", "") in front.replace("\t", "")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"labels": {"real-label": 7}}, "every score is in the recipe's range"),
        ({"labels": {"real-label": "높음"}}, "every pair has a score, and it is a number"),
        ({"sentence2": "  "}, "the second sentence is never blank"),
        ({"sentence1": None}, "every row has the first sentence"),
        ({"sentence1": "반쪽 \ud83d"}, "every `sentence1` is text"),
        ({"labels": {}}, "every item has `labels.real-label`"),
        ({"labels": {"real-label": 1e12}}, "every score is in the recipe's range"),
    ],
)
def test_one_bad_pair_is_set_aside(make_job: MakeJob, tmp_path: Path, change: dict[str, Any], rule: str) -> None:
    recipe = load_recipe("klue-sts", "embedded", overrides=BOUND)
    bad = pairs(1, "x")[0] | {"guid": "bad"} | change
    write_pairs(tmp_path, [*pairs(60, "train"), bad], pairs(30, "dev"), ascii_only=True)
    made = validate(make_job(recipe), tmp_path)
    [found] = aside(made.path)
    assert (found["item"], found["rule"]) == ("61", rule)
    assert made.manifest.figures["train_rows"] == 60


def test_row_breaking_two_rules_is_listed_once(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND)
    write_reviews(tmp_path, [*reviews(60, 1), ("", "긴" * 10_001, "1")], reviews(30, 5000))
    [found] = aside(validate(make_job(recipe), tmp_path).path)
    assert set(found["rule"].split("; ")) == {"no id is empty", "a document has at most 10,000 characters"}


def test_train_row_with_test_id_is_set_aside(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND | {"data.quarantine": 0.04})
    write_reviews(tmp_path, reviews(60, 1), [*reviews(30, 5000), reviews(60, 1)[7]])
    made = validate(make_job(recipe), tmp_path)
    [found] = aside(made.path)
    assert (found["file"], found["id"]) == ("nsmc/ratings_train.txt", "8")
    assert made.manifest.figures["test_in_train"] == 0
    assert (made.manifest.figures["train_rows"], made.manifest.figures["test_rows"]) == (59, 31)


def test_too_many_bad_rows_stop_the_run(make_job: MakeJob, store: Store, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND)
    bad = [(f"9{n}", f"하나 {n}", "7") for n in range(5)]
    write_reviews(tmp_path, [*reviews(60, 1), *bad, ("", "둘", "1")], reviews(30, 5000))
    made = validate(make_job(recipe), tmp_path)
    assert (made.manifest.figures["quarantined"], made.manifest.figures["train_rows"]) == (6, 60)
    write_reviews(tmp_path, [*reviews(60, 1), *bad, ("", "둘", "1"), ("96", "셋", "8")], reviews(30, 5000))
    with pytest.raises(DataError) as caught:
        validate(make_job(recipe), tmp_path)
    text = str(caught.value)
    assert """the rule "no id is empty": line 67 (id '')""" in text
    assert "line 62 (id 90, label 7)" in text
    assert "7 of 67 rows break a rule for single rows, but at most 6 (2.0%, data.quarantine) may be set aside" in text
    rejected = store.newest("rejected-data", "nsmc")
    assert rejected is not None
    assert len(aside(rejected.path)) == 7
    assert len(store.refs("validate", "nsmc")) == 1


def test_the_bound_is_held_file_by_file(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND)
    # Five rows of 30 are too many for the test file, and not for both files together.
    bad = [(f"9{n}", f"하나 {n}", "7") for n in range(5)]
    write_reviews(tmp_path, reviews(60, 1), [*reviews(25, 5000), *bad])
    with pytest.raises(DataError, match=r"ratings_test\.txt: 5 of 30 rows break a rule for single rows"):
        validate(make_job(recipe), tmp_path)


def test_remaining_rows_must_obey_file_rules(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND | {"data.min_train_rows": 60})
    write_reviews(tmp_path, [*reviews(59, 1), ("98", "하나", "7")], reviews(30, 5000))
    with pytest.raises(DataError, match=r"as many rows as the recipe asks for.*found 59"):
        validate(make_job(recipe), tmp_path)


def test_page_shows_only_the_first_bad_rows(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND | {"data.quarantine": 0.6})
    bad = [(f"bad-{n}", f"나쁜 줄 {n}", "7") for n in range(70)]
    write_reviews(tmp_path, [*reviews(60, 1), *bad], reviews(30, 5000))
    made = validate(make_job(recipe), tmp_path)
    assert [item["id"] for item in aside(made.path)] == [id for id, _, _ in bad]
    assert made.manifest.figures["train_rows"] == 60
    assert "The first 50 are listed" in (made.path / "docs" / "index.html").read_text("utf-8")
