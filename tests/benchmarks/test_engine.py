"""Benchmarks of the engine, on a few sentences and a small model: they run and report their documented figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.benchmarked import said, said_here

pytestmark = pytest.mark.torch


@pytest.mark.slow
def test_the_one_for_cpus(data: Path) -> None:
    found = said("engine", "--data", str(data), "--shape", "2x128", "--sentences", "200", "--rounds", "1")["shapes"][
        "2x128"
    ]
    assert found["ratios"] == [round(found["ratio"], 1)]
    assert found["ratio"] == pytest.approx(found["engine"] / found["usual"])
    assert 0 < found["share_of_peak"] < 1
    assert min(found["alone"], found["shared"]) > 0


def test_the_one_for_gpus_where_there_is_none(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--device", "cpu", "--shape", "1x64", "--sentences", "100", "--rounds", "1")
    document = said_here(monkeypatch, capsys, "engine_cuda", "--data", str(data), *options)
    assert document["machine"] == "cpu"
    (found,) = document["engine"].values()
    assert found["ratio"] == pytest.approx(found["rate"] / document["usual"])
    assert found["one_ms"] > 0
