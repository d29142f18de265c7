"""Benchmarks of training, on a few rows and tiny models: they run and report their documented figures."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from benchmarks.mini import measure
from pipeline.cli.options import overrides
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.store.figures import EvaluationFigures, TrainingFigures
from tests.support.benchmarked import said_here
from tests.support.cli import sets
from tests.support.small_pipeline import SMALL

pytestmark = pytest.mark.torch

FEW = sets(SMALL | {"data.min_train_rows": 1, "data.min_test_rows": 1})


def test_ours_beside_the_usual_script(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each side is a process; the benchmark that starts them is this one.
    options = ("--data", str(data), "--rows", "200", "--rounds", "1", "--square", "256", *FEW)
    found = said_here(monkeypatch, capsys, "training", *options)
    assert 100 < found["train_rows"] <= 200
    assert found["ratio"] == found["ours"]["samples_per_second"] / found["usual"]["samples_per_second"]
    assert found["ratios"] == [round(found["ratio"], 2)]
    # The baseline pads every row to the maximum length.
    assert found["ours"]["padding"] < found["usual"]["padding"] < 1
    for side in ("ours", "usual"):
        assert found[side]["share_of_peak"] > 0
        assert found["accuracies"][side] == [found[side]["metric"]]
        assert 0 < found[side]["metric"] < 1


def test_threads_of_a_batch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # Only one variant: each needs three processes that import torch, and variants differ in two numbers only.
    way = "a thread a core, of a batch"
    options = ("--recipe", "klue-sts", "--seconds", "0.1", "--warm", "1", "--rounds", "1", "--ways", way)
    found = said_here(monkeypatch, capsys, "threads", *options)
    assert set(found["ways"]) == {way}
    assert set(found["ways"][way]) == {"alone", "two at once"}
    assert all(rate > 0 for rate in found["ways"][way].values())


@pytest.mark.parametrize("recipe", ["nsmc", "klue-sts"])
def test_settings_are_compared_without_the_test_file(
    data: Path, recipe: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", str(data), "--recipe", recipe, "--seeds", "7", "8", *FEW, "--set", "train.epochs=1")
    found = said_here(monkeypatch, capsys, "mini", *options)["recipes"][recipe]
    assert [item["seed"] for item in found["seeds"]] == [7, 8]
    assert (found["rows"], found["pairs"], found["baseline"]) == ("validation", None, None)
    store = open_store(settings)
    assert store.list("evaluate") == []
    validated = [TrainingFigures.read(store.open(ref)).validation for ref in store.refs("train", recipe)]
    assert {item[name] for item in found["seeds"] for name in found["mean"]} == {
        item[name] for item in validated for name in found["mean"]
    }
    for name, value in found["mean"].items():
        values = [item[name] for item in found["seeds"]]
        assert value == pytest.approx(statistics.mean(values))
        assert found["spread"][name] == pytest.approx(statistics.stdev(values))
    # A claim about the unchanged recipe: the same trainings on the test file, and compared with each other.
    chosen = overrides([*FEW[1::2], "train.epochs=1"])
    claimed = measure(settings.model_copy(update={"data": data}), recipe, [7, 8], chosen, test=True)
    evaluated = [EvaluationFigures.read(store.open(ref)).test for ref in store.refs("evaluate", recipe)]
    assert {item[name] for item in claimed["seeds"] for name in claimed["mean"]} == {
        item[name].value for item in evaluated for name in claimed["mean"]
    }
    assert (claimed["rows"], claimed["pairs"]["count"]) == ("test", 2)
    assert (claimed["baseline"] is None) == (recipe == "nsmc")


def test_claim_on_the_test_file_takes_no_settings(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        said_here(monkeypatch, capsys, "mini", "--data", str(data), "--test", "--set", "train.epochs=1")
    assert "compare settings on the validation rows" in capsys.readouterr().err
