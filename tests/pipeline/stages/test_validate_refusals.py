"""Files that the data gate refuses, checked by the critical rules of the shipped suites."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import AbsentDataError, DataError, RejectedDataError
from pipeline.job import Job
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings
from pipeline.stages.validate import validate
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.manifest import file_digest
from tests.support.published import Row, pairs, reviews, write_pairs, write_reviews
from tests.support.suites import without_warnings

pytestmark = pytest.mark.usefixtures("no_rule_pages")

MakeJob = Callable[..., Job]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return without_warnings(settings, tmp_path)


def rejected(store: Store, recipe: str) -> Artifact:
    found = store.newest("rejected-data", recipe)
    assert found is not None
    return found


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): file_digest(path) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("train", "sentences"),
    [
        (
            [(a, b, "긍정") for a, b, _ in reviews(39, 1)],
            [
                r'39 of 39 rows break the rule "every label is one of the recipe\'s" \(value_set \["0", "0.0", .*, '
                r'"positive"\]\): line 2 \(id 1, label 긍정\), line 3 \(id 2, label 긍정\), line 4 .* and 36 more',
                r"\(rows: 39\) breaks the rule .*as many rows as the recipe asks for\" \(min_value 40\): found 39",
            ],
        ),
        (
            [
                *reviews(60, 1),
                ("99", "애매하다", "7"),
                ("3", "또 3번", "1"),
                ("", "이름 없는 후기", "1"),
                ("98", "", "1"),
                ("97", "가" * 10_001, "1"),
            ],
            [
                r"1 of 65 rows breaks the rule .*: line 62 \(id 99, label 7\)",
                r'2 of 65 rows break the rule "every id occurs once": line 4 \(id 3\)',
                r'1 of 65 rows breaks the rule "no id is empty": line 64',
                r'1 of 65 rows breaks .* 1 row in 1,000 has an empty document": line 65 \(id 98\)',
                r"1 of 65 rows breaks .* at most 10,000 characters.*line 66",
            ],
        ),
        (
            [(a, b, "1") for a, b, _ in reviews(60, 1)],
            [r'breaks the rule "between 1 and 9 in 10 reviews are positive": found 1$'],
        ),
    ],
    ids=["too few, all labels", "single rows", "one label"],
)
def test_bad_reviews_stop_the_run(
    nsmc: Recipe, make_job: MakeJob, data: Path, store: Store, train: list[Row], sentences: list[str]
) -> None:
    write_reviews(data, train, reviews(30, 5000))
    with pytest.raises(DataError) as caught:
        validate(make_job(nsmc), data)
    for sentence in sentences:
        assert re.search(sentence, str(caught.value), re.MULTILINE), sentence
    assert str(caught.value).startswith(str(data / "nsmc" / "ratings_train.txt"))
    assert store.newest("validate", "nsmc") is None
    found = rejected(store, "nsmc")
    assert f"{found.uri}/docs/index.html" in str(caught.value)
    assert found.manifest.figures["reasons"][0] in str(caught.value)
    assert "refused" in (found.path / "docs" / "index.html").read_text("utf-8")
    assert isinstance(caught.value, RejectedDataError)
    assert (caught.value.ref, caught.value.run) == (found.ref, found.manifest.run)


def test_too_much_leakage_in_train_stops_run(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    write_reviews(data, reviews(60, 1), [*reviews(30, 5000), reviews(60, 1)[7]])
    with pytest.raises(DataError, match=r"ratings_train.txt: 1 of 60 rows breaks the rule \"no row to learn from"):
        validate(make_job(nsmc), data)


def test_bad_pairs_stop_the_run(sts: Recipe, make_job: MakeJob, data: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"labels": {"real-label": 7}},
        {"labels": {"real-label": "높음"}},
        {"labels": {"real-label": None}},
        {"sentence2": "  "},
        {"sentence1": None},
    ]
    bad = [item | change for item, change in zip(pairs(5, "x"), changes, strict=True)]
    write_pairs(data, [*pairs(60, "train"), *bad], pairs(30, "dev"))
    with pytest.raises(DataError) as caught:
        validate(make_job(sts), data)
    for sentence in (
        r"1 of 65 rows breaks .*range\" \(min_value 0.0, max_value 5.0\): item 61 \(id x-0, label 7\)",
        r"2 of 65 rows break .*it is a number\": item 62 \(id x-1, label 높음\), item 63 \(id x-2, no label\)",
        r'1 of 65 rows breaks the rule "the second sentence is never blank": item 64 \(id x-3\)',
        r'1 of 65 rows breaks the rule "every row has the first sentence": item 65 \(id x-4\)',
    ):
        assert re.search(rf"train\.json: {sentence}", str(caught.value)), sentence


def test_scores_of_seven_throughout_stop_the_run(sts: Recipe, make_job: MakeJob, data: Path) -> None:
    train = [item | {"labels": {"real-label": 7}} for item in pairs(60, "train")]
    write_pairs(data, train, pairs(30, "dev"))
    with pytest.raises(
        DataError, match=r"60 of 60 rows break the rule \"every score is in the recipe's range\""
    ) as caught:
        validate(make_job(sts), data)
    assert "the scores spread by at least 0.5" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"id\tdocument\tlabel\n", "has no rows"),
        (b"\xef\xbb\xbfid\tdocument\tlabel\n1\ta\t1\n", "byte order mark"),
        ("id\tdocument\tlabel\n1\t좋다\t1\n".encode("cp949"), "1 line is not UTF-8: line 2; it can be read as CP949"),
        (b"id\tdocument\n1\ta\n", "no column `label`"),
        (b"id\tdocument\tlabel\n1\ta\t1\n2\tb\n", r"line 3 \(1\)"),
    ],
)
def test_what_cannot_be_read_stops_the_run(
    nsmc: Recipe, make_job: MakeJob, data: Path, store: Store, content: bytes, sentence: str
) -> None:
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    file = data / "nsmc" / "ratings_test.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        validate(make_job(nsmc), data)
    assert str(caught.value).startswith(str(file))
    assert store.newest("validate", "nsmc") is None


def test_truncated_json_stops_the_run(sts: Recipe, make_job: MakeJob, data: Path) -> None:
    write_pairs(data, pairs(60, "train"), pairs(30, "dev"))
    file = data / "klue-sts" / "klue-sts-v1.1_train.json"
    file.write_text(file.read_text("utf-8")[:2000], encoding="utf-8")
    with pytest.raises(DataError, match="line 1 is not JSON: the file ends too early"):
        validate(make_job(sts), data)


def test_data_that_is_not_there_stops_the_run(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    with pytest.raises(DataError, match="set SAEBYEOK_DATA"):
        validate(make_job(nsmc), data)


def test_own_recipe_counts_where_data_are_of_others(
    nsmc: Recipe, make_job: MakeJob, data: Path, tmp_path: Path
) -> None:
    plain = make_job(nsmc)
    data.mkdir()
    (data / "own.tsv").touch()
    with pytest.raises(DataError, match=r"ratings_train\.txt is missing") as missing:
        validate(plain, data)
    assert not isinstance(missing.value, AbsentDataError)
    (tmp_path / "own.toml").write_text("[data]\ntrain = 'own.tsv'\ntest = 'own.tsv'\n", encoding="utf-8")
    settings = plain.settings.model_copy(update={"recipes": str(tmp_path)})
    with pytest.raises(AbsentDataError, match="it has the files of own"):
        validate(replace(plain, settings=settings), data)


def test_validation_leaves_suites_and_drafts_clean(
    nsmc: Recipe, make_job: MakeJob, data: Path, settings: Settings
) -> None:
    before = tree(settings.expectations)
    write_reviews(data, [(a, b, "7") for a, b, _ in reviews(60, 1)], reviews(30, 5000))
    with pytest.raises(DataError):
        validate(make_job(nsmc), data)
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    validate(make_job(nsmc), data)
    assert tree(settings.expectations) == before
    drafts = Path(settings.store_uri) / ".drafts"
    assert not any(drafts.iterdir())
