"""The data gate on small files, with real Great Expectations runs, in a store of the test's own."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config_file import ROOT
from pipeline.data.splits import split_rows
from pipeline.errors import AbsentDataError, DataError, RejectedDataError
from pipeline.job import Job, day_of
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings
from pipeline.stages.validate import _label_fields, validate
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.manifest import file_digest
from tests.support.published import SMALL, Row, pairs, reviews, write_pairs, write_reviews

pytestmark = pytest.mark.usefixtures("compiled_templates")

MakeJob = Callable[..., Job]


#: A share of which so few rows may have none.
STRICT = SMALL | {"data.quarantine": 1e-6}


@pytest.fixture
def nsmc() -> Recipe:
    return load_recipe("nsmc", "embedded", overrides=STRICT)


@pytest.fixture
def sts() -> Recipe:
    return load_recipe("klue-sts", "embedded", overrides=STRICT)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def rejected(store: Store, recipe: str) -> Artifact:
    found = store.newest("rejected-data", recipe)
    assert found is not None
    return found


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): file_digest(path) for path in directory.rglob("*") if path.is_file()}


def test_good_reviews_become_an_artifact(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    test = reviews(29, 5000)
    write_reviews(data, reviews(60, 1), [*test, ("9000", "2번째 영화, 좋다", "1")])
    made = validate(make_job(nsmc), data)
    train_table = pd.read_parquet(made.path / "train.parquet")
    test_table = pd.read_parquet(made.path / "test.parquet")
    assert train_table.columns.tolist() == ["id", "text", "label"]
    assert test_table.columns.tolist() == ["id", "text", "label", "in_train"]
    assert train_table["label"].tolist() == [0, 1] * 30
    assert test_table.loc[test_table["in_train"], "id"].tolist() == ["9000"]
    assert made.manifest.figures == {
        "train_rows": 60,
        "test_rows": 30,
        "test_in_train": 1,
        "warnings": [],
        "sample": False,
        "cutoff": None,
        "arrivals": [],
        "left_out": [],
        "quarantined": 0,
        "overlap": {
            "test_in_train": 1,
            "train_two_labels": 0,
            "train_duplicates": 0,
            "test_two_labels": 0,
            "test_duplicates": 0,
        },
    }
    findings = made.read_json("validation.json")["findings"]
    assert {item["split"] for item in findings} == {"train", "test"}
    assert all(item["passed"] and item["reason"] for item in findings)


def test_good_pairs_become_an_artifact(sts: Recipe, make_job: MakeJob, data: Path) -> None:
    swapped = pairs(1, "train")[0] | {
        "guid": "swapped",
        "sentence1": "0번 버스가 갔다.",
        "sentence2": "train 0번 버스가 온다.",
    }
    write_pairs(data, pairs(60, "train"), [*pairs(30, "dev"), swapped])
    made = validate(make_job(sts), data)
    table = pd.read_parquet(made.path / "test.parquet")
    assert table.columns.tolist() == ["id", "text", "text_pair", "label", "source", "in_train"]
    assert table["label"].dtype == "float64"
    # Only the exact pair counts, with the order of its two sentences.
    assert made.manifest.figures["test_in_train"] == 0


def test_data_docs_open_offline_and_show_rows(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    test = [("9", " ", "0"), ("10", "<script>alert('나쁜 후기')</script>", "0"), *reviews(30, 5000)]
    write_reviews(data, [*reviews(60, 100), ("11", " ", "1")], test)
    made = validate(make_job(nsmc), data)
    pages = {path.relative_to(made.path).as_posix(): path.read_text("utf-8") for path in made.path.rglob("*.html")}
    assert "docs/index.html" in pages
    assert len(pages) == 4  # the suite, and one validation per file
    for page in pages.values():
        assert not re.findall(r"<script|<img|<link|src=|url\(|https?://|onclick=", page)
        assert "default-src 'none'" in page
    front = pages["docs/index.html"]
    assert "no document is blank" in front
    assert '<td class="short">11</td>' in front
    for target in re.findall(r'href="([^"#]+)"', front):
        assert (made.path / "docs" / target).is_file()


@pytest.mark.browser
def test_browser_shows_korean_without_other_requests(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed, so the data docs are not opened in a browser")
    sync_api = pytest.importorskip("playwright.sync_api")
    write_reviews(data, [*reviews(60, 100), ("11", "빵점", "영점")], reviews(30, 5000))
    job = make_job(nsmc)
    with pytest.raises(DataError):
        validate(job, data)
    docs = rejected(job.store, "nsmc").path / "docs"
    asked: list[str] = []
    said: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto((docs / "index.html").as_uri())
        row = page.get_by_role("row").filter(has_text="빵점").first
        assert row.inner_text().split("\t") == ["62", "11", "빵점", "영점"]
        page.get_by_role("link", name="validation of the train rows").click()
        page.get_by_text("every label is one of the recipe's").wait_for()
        assert page.get_by_text("영점").is_visible()
        browser.close()
    assert len(asked) == 2
    assert all(url.startswith("file://") for url in asked)
    assert said == []


def test_warnings_are_sentences_and_do_not_stop(
    nsmc: Recipe, make_job: MakeJob, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_reviews(data, [*reviews(60, 1), ("77", " ", "1")], reviews(30, 5000))
    made = validate(make_job(nsmc), data)
    [warning] = made.manifest.figures["warnings"]
    assert warning.endswith('ratings_train.txt: 1 of 61 rows breaks the rule "no document is blank": line 62 (id 77)')
    assert warning in caplog.text


@pytest.mark.parametrize(
    ("train", "sentences"),
    [
        (
            [(a, b, "긍정") for a, b, _ in reviews(60, 1)],
            [
                r'60 of 60 rows break the rule "every label is one of the recipe\'s" \(value_set \["0", "0.0", .*, '
                r'"positive"\]\): line 2 \(id 1, label 긍정\), line 3 \(id 2, label 긍정\), line 4 .* and 57 more'
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
            reviews(39, 1),
            [r"\(rows: 39\) breaks the rule .*as many rows as the recipe asks for\" \(min_value 40\): found 39"],
        ),
        (
            [(a, b, "1") for a, b, _ in reviews(60, 1)],
            [r'breaks the rule "between 1 and 9 in 10 reviews are positive": found 1$'],
        ),
    ],
    ids=["all labels", "single rows", "too few", "one label"],
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


def test_unchanged_bad_files_are_rechecked_only_with_force(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    write_reviews(data, [*reviews(60, 1), ("99", "보통", "7")], reviews(30, 5000))
    with pytest.raises(RejectedDataError) as caught:
        validate(make_job(nsmc), data)
    for force in (False, True):
        with pytest.raises(RejectedDataError) as again:
            validate(make_job(nsmc, run="later", force=force), data)
        assert again.value.run == ("later" if force else "test-run")
        assert force or str(again.value) == str(caught.value)


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


def test_validation_is_reused_until_an_input_changes(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    first = validate(make_job(nsmc), data)
    assert validate(make_job(nsmc, run="another"), data).ref == first.ref
    cut_elsewhere = load_recipe("nsmc", "embedded", overrides=STRICT | {"data.gate_share": 0.3, "train.epochs": 2})
    assert validate(make_job(cut_elsewhere), data).ref == first.ref
    assert validate(make_job(nsmc, force=True), data).ref != first.ref
    stricter = load_recipe("nsmc", "embedded", overrides=STRICT | {"data.min_test_rows": 30})
    assert validate(make_job(stricter), data).key != first.key
    write_reviews(data, reviews(60, 1), reviews(31, 5000))
    assert validate(make_job(nsmc), data).key != first.key


def test_a_changed_suite_is_run_again(
    nsmc: Recipe, make_job: MakeJob, data: Path, settings: Settings, tmp_path: Path
) -> None:
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    first = validate(make_job(nsmc), data)
    project = tmp_path / "project"
    shutil.copytree(ROOT / "expectations", project)
    suite = project / "expectations" / "nsmc.json"
    document = json.loads(suite.read_text("utf-8"))
    longest = next(item for item in document["expectations"] if item["kwargs"].get("max_value") == 10_000)
    longest["kwargs"]["max_value"] = 5
    suite.write_text(json.dumps(document), encoding="utf-8")
    job = make_job(nsmc)
    elsewhere = Job(nsmc, settings.model_copy(update={"expectations": project}), job.store, "second", cutoff=job.cutoff)
    with pytest.raises(DataError, match="60 of 60 rows break"):
        validate(elsewhere, data)
    assert validate(job, data).ref == first.ref


def test_validation_leaves_checkout_and_drafts_clean(
    nsmc: Recipe, make_job: MakeJob, data: Path, settings: Settings
) -> None:
    before = tree(ROOT / "expectations")
    write_reviews(data, [(a, b, "7") for a, b, _ in reviews(60, 1)], reviews(30, 5000))
    with pytest.raises(DataError):
        validate(make_job(nsmc), data)
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    validate(make_job(nsmc), data)
    assert tree(ROOT / "expectations") == before
    drafts = Path(settings.store_uri) / ".drafts"
    assert not any(drafts.iterdir())


NEWS = """
name = "news"
title = "Topics of headlines"
kind = "classification"
inputs = "text"
labels = ["politics", "economy", "sports"]

[data]
format = "json"
train = "headlines/train.json"
test = "headlines/test.json"
id = "meta.number"
texts = ["title"]
label = "topic"
suite = "headlines"
min_train_rows = 20
min_test_rows = 10
quarantine = 0.05
overlap = { test_in_train = 0.1, two_labels = 0.1, duplicates = 0.1 }
validation_share = 0.1
gate_share = 0.1

[model]
base = "klue/bert-base"
pooling = "cls"
max_length = 64

[train]
epochs = 1
learning_rate = 5e-5
batch_size = 32
warmup = 0.0
weight_decay = 0.0
seed = 7

[gate]
floors = { accuracy = 0.8, f1 = 0.8 }
behaviour = {}
margin = 0.01

[export]
sentences = 100
int8 = { changed_labels = 0.01, metric_change = 0.005 }
fp16 = { changed_labels = 0.01, metric_change = 0.005 }
latency_ms = 100.0

[profiles.embedded]
"""
#: As a person writes a suite: without ids, name and description.
HEADLINE_RULES = {
    "expectations": [
        {
            "type": "expect_table_row_count_to_be_between",
            "kwargs": {"min_value": {"$PARAMETER": "min_rows"}},
            "severity": "critical",
        },
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "label", "value_set": {"$PARAMETER": "labels"}},
            "severity": "critical",
        },
        {
            "type": "expect_column_value_lengths_to_be_between",
            "kwargs": {"column": "text", "max_value": 12},
            "severity": "warning",
        },
    ]
}


def new_data_set(tmp_path: Path, settings: Settings, store: Store, rules: Any) -> Job:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "news.toml").write_text(NEWS, encoding="utf-8")
    project = tmp_path / "project"
    shutil.copytree(ROOT / "expectations", project)
    (project / "expectations" / "headlines.json").write_text(json.dumps(rules), encoding="utf-8")
    recipe = load_recipe("news", "embedded", directories=[recipes])
    return Job(recipe, settings.model_copy(update={"expectations": project}), store, "first", cutoff=day_of(settings))


def write_headlines(data: Path, train: list[dict[str, Any]]) -> None:
    (data / "headlines").mkdir(parents=True)
    test = [headline(n + 500) for n in range(15)]
    for name, items in (("train", train), ("test", test)):
        (data / "headlines" / f"{name}.json").write_text(json.dumps(items), encoding="utf-8")


def headline(number: int, topic: object = "sports") -> dict[str, Any]:
    return {"meta": {"number": number}, "title": f"{number}번째 소식", "topic": topic}


def test_new_data_set_needs_recipe_and_suite(tmp_path: Path, settings: Settings, store: Store, data: Path) -> None:
    train = [headline(n, topic) for n, topic in enumerate(["politics", "economy", 2] * 10)]
    train[3]["title"] = "열두 글자보다 긴 제목입니다"
    write_headlines(data, train)
    made = validate(new_data_set(tmp_path, settings, store, HEADLINE_RULES), data)
    table = pd.read_parquet(made.path / "train.parquet")
    assert table["label"].tolist() == [0, 1, 2] * 10
    assert table["id"].tolist() == [str(n) for n in range(30)]
    [warning] = made.manifest.figures["warnings"]
    assert 'expect_column_value_lengths_to_be_between {"column": "text", "max_value": 12}' in warning
    assert "item 4 (id 3)" in warning


@pytest.mark.parametrize(
    ("change", "rule", "label"),
    [
        ({"title": None}, "every row has a text", "sports"),
        ({"topic": None}, "every `topic` is one of 0, 1, 2, politics, economy, sports", ""),
        ({"topic": "weather"}, "every `topic` is one of 0, 1, 2, politics, economy, sports", "weather"),
    ],
)
def test_row_without_text_or_label_is_set_aside(
    tmp_path: Path, settings: Settings, store: Store, data: Path, change: dict[str, Any], rule: str, label: str
) -> None:
    write_headlines(data, [*(headline(n) for n in range(30)), headline(77) | change])
    # A suite without a rule about labels; its rule about texts skips nulls.
    suite = {"expectations": [HEADLINE_RULES["expectations"][0], HEADLINE_RULES["expectations"][2]]}
    job = new_data_set(tmp_path, settings, store, suite)
    made = validate(job, data)
    header, row = (made.path / "quarantine.tsv").read_text("utf-8").splitlines()
    found = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert (found["item"], found["rule"], found["id"], found["label"]) == ("31", rule, "77", label)
    table = pd.read_parquet(made.path / "train.parquet")
    assert len(table) == 30
    assert split_rows(job.recipe, table)["train"]["label"].dtype == "int64"


def test_unlabelled_rows_with_one_id_are_set_aside(
    tmp_path: Path, settings: Settings, store: Store, data: Path
) -> None:
    # The rule about ids alone would keep the first of both rows.
    write_headlines(data, [*(headline(n) for n in range(30)), *[headline(77, None)] * 2])
    unique = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}, "severity": "critical"}
    made = validate(new_data_set(tmp_path, settings, store, {"expectations": [unique]}), data)
    assert made.manifest.figures["quarantined"] == 2
    assert len(pd.read_parquet(made.path / "train.parquet")) == 30


@pytest.mark.parametrize(
    ("labels", "further"),
    [
        (("bad", "good"), []),
        (("0", "1"), []),
        (("0.5", "1.0"), ["0.5", "1.0", "1"]),
        (("1 star", "2 stars"), ["no numbers"]),
        ((), []),
    ],
)
def test_labels_read_in_another_way_change_the_key(labels: tuple[str, ...], further: list[str]) -> None:
    recipe = load_recipe("nsmc", "embedded").model_copy(update={"labels": labels})
    assert _label_fields(recipe) == [*labels, *further]


def test_too_many_rows_without_a_label_stop_the_run(
    tmp_path: Path, settings: Settings, store: Store, data: Path
) -> None:
    write_headlines(data, [headline(n, None if n % 3 == 0 else "sports") for n in range(30)])
    suite = {"expectations": [HEADLINE_RULES["expectations"][0]]}
    with pytest.raises(
        DataError, match=r"10 of 30 rows break .*is one of.*: item 1 \(id 0, no label\), item 4 .*7 more"
    ):
        validate(new_data_set(tmp_path, settings, store, suite), data)


def test_suite_with_a_byte_order_mark_is_read(tmp_path: Path, settings: Settings, store: Store, data: Path) -> None:
    write_headlines(data, [headline(n) for n in range(30)])
    job = new_data_set(tmp_path, settings, store, HEADLINE_RULES)
    suite = job.settings.expectations / "expectations" / "headlines.json"
    suite.write_bytes(b"\xef\xbb\xbf" + suite.read_bytes())
    assert validate(job, data).manifest.figures["train_rows"] == 30


def test_new_data_set_is_refused_by_its_suite(tmp_path: Path, settings: Settings, store: Store, data: Path) -> None:
    write_headlines(data, [headline(n, "weather") for n in range(19)])
    with pytest.raises(DataError, match=r"rows: 19.*min_value 20.*found 19\n.*19 of 19 rows break .*label weather"):
        validate(new_data_set(tmp_path, settings, store, HEADLINE_RULES), data)


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"expectations": []}, "headlines.json has no `expectations`"),
        ([], "headlines.json has no `expectations`"),
        (
            {"expectations": [{"type": "expect_column_values_to_be_lovely", "kwargs": {"column": "text"}}]},
            r"headlines.json: expectation 1 \(expect_column_values_to_be_lovely\) is not valid",
        ),
        (
            {"expectations": [{"type": "expect_column_values_to_be_unique", "kwargs": {"colunm": "text"}}]},
            r"headlines.json: expectation 1 \(expect_column_values_to_be_unique\) is not valid",
        ),
        (
            {"expectations": [{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "headline"}}]},
            "suite headlines: expect_column_values_to_be_unique .*headline.* cannot be evaluated",
        ),
        (
            {
                "expectations": [
                    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": {"$PARAMETER": "rows"}}}
                ]
            },
            r"suite headlines.* rows.*correct the suite, to which the recipe supplies the parameters min_rows, labels",
        ),
    ],
)
def test_broken_suite_error_names_the_suite(
    tmp_path: Path, settings: Settings, store: Store, data: Path, rules: Any, sentence: str
) -> None:
    write_headlines(data, [headline(n) for n in range(30)])
    with pytest.raises(DataError, match=sentence):
        validate(new_data_set(tmp_path, settings, store, rules), data)


def test_shuffled_labels_are_found_by_repeated_texts(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    shuffle = random.Random(7)
    train = [(str(n), f"후기 {n % 20}", str(shuffle.randrange(2))) for n in range(100)]
    write_reviews(data, train, reviews(30, 5000))
    wide = {f"data.overlap.{kind}": 0.99 for kind in ("two_labels", "duplicates")}
    warnings = validate(make_job(load_recipe("nsmc", "embedded", overrides=SMALL | wide)), data).manifest.figures[
        "warnings"
    ]
    assert any("also stands under another label" in warning for warning in warnings)


def test_suite_beside_own_recipe_is_used(make_job: MakeJob, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(ROOT / "expectations" / "expectations", own / "expectations")
    shutil.copytree(ROOT / "pipeline" / "recipes" / "behaviour", own / "behaviour")
    text = (ROOT / "pipeline" / "recipes" / "nsmc.toml").read_text(encoding="utf-8")
    (own / "films.toml").write_text(text.replace('"nsmc"', '"films"', 1), encoding="utf-8")
    (own / "behaviour" / "nsmc.toml").rename(own / "behaviour" / "films.toml")
    recipe = load_recipe("films", "embedded", overrides=STRICT, directories=[own])
    plain = make_job(recipe)
    job = replace(plain, settings=plain.settings.model_copy(update={"recipes": str(own)}))
    write_reviews(data, reviews(60, 1), reviews(30, 5000))
    first = validate(job, data)
    suite = own / "expectations" / "nsmc.json"
    document = json.loads(suite.read_text("utf-8"))
    (rule,) = [item for item in document["expectations"] if item["kwargs"].get("max_value") == 10_000]
    # Its checkpoint in the project belongs to the shipped suite, not to this one without an id.
    suite.write_text(json.dumps({"expectations": [rule | {"description": "our own rule"}]}), encoding="utf-8")
    changed = validate(job, data)
    assert changed.key != first.key
    assert {item["rule"] for item in changed.read_json("validation.json")["findings"]} == {"our own rule"}
    suite.unlink()
    assert validate(job, data).key == validate(plain, data).key != changed.key


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


def test_recipe_of_required_keys_reads_one_csv(make_job: MakeJob, data: Path, tmp_path: Path) -> None:
    columns = '[data]\ntrain = "news.csv"\ntexts = ["글"]\nlabel = "평"\n'
    (tmp_path / "news.toml").write_text(f'kind = "classification"\nlabels = ["좋다", "싫다"]\n{columns}', "utf-8")
    recipe = load_recipe("news", "embedded", directories=[tmp_path])
    rows = [f'"{n}번째 영화, {n * 7919}",{"좋다" if n % 2 else "싫다"}' for n in range(400)]
    data.mkdir()
    # Two copies that differ in a letter's repetition are one text for the test rows, too.
    (data / "news.csv").write_text(
        "\n".join(["글,평", *rows, "재밌어 ㅋㅋ,좋다", "재밌어ㅋㅋㅋㅋ,좋다"]), encoding="utf-8"
    )
    made = validate(make_job(recipe), data)
    train, test = (pd.read_parquet(made.path / f"{split}.parquet") for split in ("train", "test"))
    assert len(train) + len(test) == 402
    assert 0.1 < len(test) / 402 < 0.3
    assert set(train["id"]) | set(test["id"]) == {f"news.csv:{line}" for line in range(2, 404)}
    assert len({side for side, rows in enumerate((train, test)) if rows["text"].str.startswith("재밌어").any()}) == 1
    assert made.manifest.figures["overlap"]["test_in_train"] == 0
    findings = made.read_json("validation.json")["findings"]
    assert all(item["passed"] and item["reason"] for item in findings)
    # More rows do not move the earlier ones.
    more = [f'"{n}번째 책, {n}",싫다' for n in range(100)]
    with (data / "news.csv").open("a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(more))
    grown = pd.read_parquet(validate(make_job(recipe), data).path / "test.parquet")
    assert set(test["id"]) <= set(grown["id"])
