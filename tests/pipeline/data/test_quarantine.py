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
from pipeline.settings import Settings
from pipeline.stages.validate import validate
from pipeline.store.artifacts import Store
from tests.support.published import Row, pairs, reviews, write_pairs, write_reviews
from tests.support.suites import with_rules

pytestmark = pytest.mark.usefixtures("no_rule_pages")

MakeJob = Callable[..., Job]
#: Six of 60 to 70 rows may be set aside, and four of 30 (`pipeline.bounds.most_of`).
BOUND = {"data.min_train_rows": 40, "data.min_test_rows": 20, "data.quarantine": 0.02}


def aside(path: Path) -> list[dict[str, str]]:
    header, *lines = (path / "quarantine.tsv").read_text("utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


#: A row and the rule that it breaks.
BAD_REVIEWS: list[tuple[Row, str]] = [
    (("77", "애매하다", "7"), "every label is one of the recipe's"),
    (("", "이름 없는 후기", "1"), "no id is empty"),
    (("3", "또 3번", "1"), "every id occurs once"),
    (("78", "긴" * 10_001, "1"), "a document has at most 10,000 characters"),
    (("79", "탭이\t하나 더", "1"), "2 tabs per line, for the columns id, document, label"),
    (("80", "둘" * 10_001, "7"), "a document has at most 10,000 characters; every label is one of the recipe's"),
]
BAD_PAIRS: list[tuple[dict[str, Any], str]] = [
    ({"labels": {"real-label": 7}}, "every score is in the recipe's range"),
    ({"labels": {"real-label": "높음"}}, "every pair has a score, and it is a number"),
    ({"sentence2": "  "}, "the second sentence is never blank"),
    ({"sentence1": None}, "every row has the first sentence"),
    ({"sentence1": "반쪽 \ud83d"}, "every `sentence1` is text"),
    ({"labels": {}}, "every item has `labels.real-label`"),
    ({"labels": {"real-label": 1e12}}, "every score is in the recipe's range"),
]
RULES = (
    "there are at least as many rows as the recipe asks for",
    "no row to learn from has an id of the test file",
    *{rule for _, rules in (*BAD_REVIEWS, *BAD_PAIRS) for rule in rules.split("; ")},
)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_rules(settings, tmp_path / "rules", *RULES)


def test_bad_reviews_are_set_aside_with_rule(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND)
    bad, good = [row for row, _ in BAD_REVIEWS], [*reviews(30, 1), *reviews(30, 100)]
    write_reviews(tmp_path, [*good[:30], *bad, *good[30:]], reviews(30, 5000))
    made = validate(make_job(recipe), tmp_path)
    found = [(item["file"], item["line"], item["rule"]) for item in aside(made.path)]
    assert sorted(found) == [("nsmc/ratings_train.txt", str(32 + n), rule) for n, (_, rule) in enumerate(BAD_REVIEWS)]
    table = pd.read_parquet(made.path / "train.parquet")
    assert table["id"].tolist() == [id for id, _, _ in good]
    assert made.manifest.figures["quarantined"] == 6
    assert made.manifest.figures["warnings"][0] == "6 rows were set aside in quarantine.tsv"
    front = (made.path / "docs" / "index.html").read_text("utf-8")
    assert "set aside" in front
    assert all(text[:30].replace("\t", "") in front.replace("\t", "") for _, text, _ in bad)


def test_bad_pairs_are_set_aside_with_rule(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("klue-sts", "embedded", overrides=BOUND | {"data.quarantine": 0.1})
    bad = [item | change for item, (change, _) in zip(pairs(7, "x"), BAD_PAIRS, strict=True)]
    write_pairs(tmp_path, [*pairs(60, "train"), *bad], pairs(30, "dev"), ascii_only=True)
    made = validate(make_job(recipe), tmp_path)
    found = [(item["item"], item["rule"]) for item in aside(made.path)]
    assert sorted(found) == [(str(61 + n), rule) for n, (_, rule) in enumerate(BAD_PAIRS)]
    assert made.manifest.figures["train_rows"] == 60


def test_train_row_with_test_id_is_set_aside(make_job: MakeJob, tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=BOUND | {"data.quarantine": 0.04})
    write_reviews(tmp_path, reviews(60, 1), [*reviews(30, 5000), reviews(60, 1)[7]])
    made = validate(make_job(recipe), tmp_path)
    [found] = aside(made.path)
    assert (found["file"], found["id"]) == ("nsmc/ratings_train.txt", "8")
    assert made.manifest.figures["warnings"] == ["1 row was set aside in quarantine.tsv"]
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
