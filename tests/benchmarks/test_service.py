"""The benchmark of the service on a tiny release: every variant starts, answers like the engine, and is measured."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from benchmarks.service_checkouts import ratio, summarize
from tests.support.benchmarked import said
from tests.support.small_pipeline import anything_goes, open_road, small_recipe

pytestmark = [pytest.mark.torch, pytest.mark.server]

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
def test_what_is_not_installed_is_said(document: dict[str, Any]) -> None:
    assert document["missing"]["litserve"].startswith("not installed: pip install litserve==")


def test_interval_is_over_the_starts() -> None:
    found = ratio([[0.1, 0.3], [0.0, 0.0], [0.1, 0.1]])
    # Student's t for two degrees of freedom: 4.3027; the means 0.2, 0 and 0.1 have a standard deviation of 0.1.
    assert found["ratio"] == pytest.approx(2.718281828**0.1)
    assert found["high"] / found["ratio"] == pytest.approx(2.718281828 ** (4.3027 * 0.1 / 3**0.5), rel=1e-4)
    assert found["low"] * found["high"] == pytest.approx(found["ratio"] ** 2)


def test_checkouts_are_compared_by_rate_and_cpu_time() -> None:
    def run(rate: float, cores: float) -> dict[str, Any]:
        return {"sentences_per_second": rate, "cores": {"service": cores}, "errors": {"500": 1}}

    found = summarize([[(run(90, 1), run(100, 2))], [(run(99, 1), run(110, 2))]])
    assert found["sentences per second"]["ratio"] == pytest.approx(0.9)
    assert found["sentences per CPU second"]["ratio"] == pytest.approx(1.8)
    assert (found["here"], found["there"], found["errors"]) == (94.5, 105, 4)
