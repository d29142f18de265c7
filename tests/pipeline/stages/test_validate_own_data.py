"""The data gate on a data set that a user adds, with its own recipe and suite."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config_file import ROOT
from pipeline.data.splits import split_rows
from pipeline.errors import DataError
from pipeline.job import Job, day_of
from pipeline.recipes.loading import load_recipe
from pipeline.settings import Settings
from pipeline.stages.validate import validate
from pipeline.store.artifacts import Store

pytestmark = pytest.mark.usefixtures("no_rule_pages")

MakeJob = Callable[..., Job]


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


def test_rows_without_text_or_label_are_set_aside(tmp_path: Path, settings: Settings, store: Store, data: Path) -> None:
    no_label = "every `topic` is one of 0, 1, 2, politics, economy, sports"
    bad = [
        ({"title": None}, "every row has a text", "sports"),
        ({"topic": None}, no_label, ""),
        ({"topic": "weather"}, no_label, "weather"),
    ]
    good = [headline(n) for n in range(60)]
    write_headlines(data, [*good, *(headline(77 + n) | change for n, (change, _, _) in enumerate(bad))])
    # A suite without a rule about labels; its rule about texts skips nulls.
    suite = {"expectations": [HEADLINE_RULES["expectations"][0], HEADLINE_RULES["expectations"][2]]}
    job = new_data_set(tmp_path, settings, store, suite)
    made = validate(job, data)
    header, *lines = (made.path / "quarantine.tsv").read_text("utf-8").splitlines()
    found = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert [(row["item"], row["rule"], row["id"], row["label"]) for row in found] == [
        (str(61 + n), rule, str(77 + n), label) for n, (_, rule, label) in enumerate(bad)
    ]
    table = pd.read_parquet(made.path / "train.parquet")
    assert len(table) == len(good)
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
