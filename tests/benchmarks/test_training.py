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


@pytest.mark.slow
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
