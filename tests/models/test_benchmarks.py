"""Benchmarks that start servers or trainings, on tiny models: they run and report their documented figures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.support.benchmarked import said, write_few_rows
from tests.support.cli import sets
from tests.support.small_pipeline import SMALL, anything_goes, open_road, small_recipe

pytestmark = pytest.mark.models

FEW = sets(SMALL | {"data.min_train_rows": 1, "data.min_test_rows": 1})
WAYS = ["saebyeok", "bentoml plain", "bentoml batching", "bare uvicorn"] + (
    ["litserve"] if importlib.util.find_spec("litserve") else []
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the output of one short round."""
    home = tmp_path_factory.mktemp("benchmark")
    road = open_road(small_recipe("nsmc", model__pooling="cls", **anything_goes("nsmc")), home)
    release = ("--data", str(home / "sample"), "--release", str(road.released.path))
    return said("service", *release, "--seconds", "0.5", "--rounds", "1", "--clients", "4", "--processes", "1")


def test_every_way_answers_without_an_error(document: dict[str, Any]) -> None:
    (measured,) = document["rounds"]
    assert set(measured) == {"engine", *WAYS}
    for way in WAYS:
        assert measured[way]["agrees"] >= 0.8
        for size in ("1", "32"):
            run = measured[way][size]
            assert (run["errors"], run["requests"] > 0) == ({}, True), way
            assert 0 < run["p50"] <= run["p95"] <= run["p99"]
            assert run["cores"]["service"] > 0


def test_shares_are_of_the_engine_in_the_same_round(document: dict[str, Any]) -> None:
    (measured,) = document["rounds"]
    for size in ("1", "32"):
        for way in WAYS:
            share = measured[way][size]["sentences_per_second"] / measured["engine"][size]["sentences_per_second"]
            row = document["loads"][size][way]
            assert row["of_engine"] == {"median": share, "low": share, "high": share}
            assert row["sentences_per_second"] == pytest.approx(measured[way][size]["requests_per_second"] * int(size))


@pytest.mark.skipif("litserve" in WAYS, reason="LitServe is installed")
def test_missing_server_is_named(document: dict[str, Any]) -> None:
    assert document["missing"]["litserve"].startswith("not installed: pip install litserve==")


def test_training_is_compared_with_the_usual_script(tmp_path: Path) -> None:
    options = ("--data", str(write_few_rows(tmp_path)), "--rows", "200", "--rounds", "1", "--square", "256", *FEW)
    found = said("training", *options)
    assert 100 < found["train_rows"] <= 200
    assert found["ratio"] == found["ours"]["samples_per_second"] / found["usual"]["samples_per_second"]
    assert found["ratios"] == [round(found["ratio"], 2)]
    # The baseline pads every row to the maximum length.
    assert found["ours"]["padding"] < found["usual"]["padding"] < 1
    for side in ("ours", "usual"):
        assert found[side]["share_of_peak"] > 0
        assert found["accuracies"][side] == [found[side]["metric"]]
        assert 0 < found[side]["metric"] < 1


def test_threads_of_a_batch() -> None:
    # Only one variant: each needs three processes that import torch, and variants differ in two numbers only.
    way = "a thread a core, of a batch"
    options = ("--recipe", "klue-sts", "--seconds", "0.1", "--warm", "1", "--rounds", "1", "--ways", way)
    found = said("threads", *options)
    assert set(found["ways"]) == {way}
    assert set(found["ways"][way]) == {"alone", "two at once"}
    assert all(rate > 0 for rate in found["ways"][way].values())


def test_steps_are_measured_during_uploads_to_both_stores() -> None:
    found = said("checkpoints", "--rounds", "2", "--latency", "0.01", *sets(SMALL), "--set", "train.epochs=100")
    assert list(found["stores"]) == ["a directory", "S3, 10 ms per request"]
    for store in found["stores"].values():
        assert 0 < store["low"] < store["ratio"] < store["high"]
        assert min(store[name] for name in ("step_ms", "start_ms", "uploads", "megabytes")) > 0
