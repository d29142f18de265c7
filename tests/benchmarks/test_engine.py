"""The benchmarks of the engine, on few sentences and a small model: they run, and say what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.sample import write_sample
from pipeline.settings import ROOT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as the published ones."""
    directory = tmp_path_factory.mktemp("data")
    write_sample(directory)
    return directory


def said(benchmark: str, data: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--data", str(data), "--json", *options]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_one_for_cpus(data: Path) -> None:
    found = said("engine", data, "--shape", "2x128", "--sentences", "200", "--rounds", "1")["shapes"]["2x128"]
    assert found["ratios"] == [round(found["ratio"], 1)]
    assert found["ratio"] == pytest.approx(found["engine"] / found["usual"])
    assert 0 < found["share_of_peak"] < 1
    assert min(found["alone"], found["shared"]) > 0


def test_the_one_for_gpus_where_there_is_none(data: Path) -> None:
    options = ("--device", "cpu", "--shape", "1x64", "--sentences", "100", "--rounds", "1")
    document = said("engine_cuda", data, *options)
    assert document["machine"] == "cpu"
    (found,) = document["engine"].values()
    assert found["ratio"] == pytest.approx(found["rate"] / document["usual"])
    assert found["one_ms"] > 0
