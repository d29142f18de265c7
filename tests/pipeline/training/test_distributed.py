"""Two processes train the same model as one; here on a CPU, over gloo."""

from __future__ import annotations

import signal
from dataclasses import replace
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.stages.train import train
from pipeline.store.artifacts import Artifact
from tests.support.small_pipeline import SHAPE, Road, open_road, small_recipe, weights

pytestmark = [pytest.mark.torch, pytest.mark.slow]

#: Figures of an epoch that depend on the model only. The validation loss is excluded: it includes the rows that fill up
#: the last batch so that all processes have equally many.
OF_THE_MODEL = ("epoch", "loss", "grad_norm", "learning_rate")


def in_two(road: Road, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setattr("pipeline.training.fine_tune.training_processes", lambda rows: 2)
    # As in a Celery worker.
    monkeypatch.setattr(current_process(), "daemon", True)
    return train(replace(road.job, force=True), road.tokenized)


def history(artifact: Artifact) -> list[dict[str, Any]]:
    return [{name: epoch[name] for name in OF_THE_MODEL} for epoch in artifact.manifest.figures["history"]]


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_two_processes_make_the_model_that_one_makes(
    tracking_on: None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "klue-sts":
        # The other recipe's processes start as in production.
        request.getfixturevalue("forked")
    road = open_road(small_recipe(name, model__scratch=SHAPE | {"dropout": 0.0}), tmp_path, train=300, test=40)
    alone, before = road.trained, signal.getsignal(signal.SIGTERM)
    together = in_two(road, monkeypatch)
    assert signal.getsignal(signal.SIGTERM) == before
    for ours, theirs in zip(history(together), history(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=0.01)
    assert together.manifest.figures["validation"] == pytest.approx(alone.manifest.figures["validation"], abs=0.02)
    assert together.manifest.figures["calibration"] == (
        alone.manifest.figures["calibration"] and pytest.approx(alone.manifest.figures["calibration"], rel=0.02)
    )
    for key, tensor in weights(alone).items():
        # Sums differ in order, and in precision if the machine has bf16.
        torch.testing.assert_close(weights(together)[key], tensor, atol=0.02, rtol=0.1)
    runs = sorted((tmp_path / "wandb").rglob("offline-run-*/run-*.wandb"))
    recorded = [file.read_bytes() for file in runs if b"train/tokens_per_second" in file.read_bytes()]
    assert len(recorded) == 2
    assert all(b"train/global_step" in content and b"eval/" in content for content in recorded)
    assert not list((tmp_path / "work").glob("*"))
