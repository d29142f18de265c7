"""Training with transformers' own callback for Weights & Biases, whose process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.settings import library_environment

pytestmark = [pytest.mark.usefixtures("tracking_on"), pytest.mark.slow]

# In a separate process, so that torch's import and the killed helper do not affect other tests.
TRAINING = """
import sys, time
import psutil, torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from pipeline.job import open_job
from pipeline.settings import load_settings
from pipeline.tracking.runs import tracked

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, labels):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}

class KillWandb(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            for child in psutil.Process().children():
                if "wandb-core" in child.name():
                    child.kill()
                    child.wait()

rows = [{"x": torch.ones(1), "labels": torch.ones(1)} for _ in range(8)]
settings = load_settings()
arguments = TrainingArguments(str(settings.home / "out"), report_to="none", logging_steps=1, max_steps=4,
    per_device_train_batch_size=2, use_cpu=True, disable_tqdm=True, save_strategy="no")
for kill in (False, True):
    job = open_job("nsmc", settings=settings, sample=True)
    with tracked(job, "train", {}) as tracker:
        callbacks = tracker.trainer_callbacks()
        Trainer(Line(), arguments, train_dataset=rows, callbacks=callbacks + ([KillWandb()] if kill else [])).train()
        # That the process has gone is noticed by a write some moments later.
        waits = 600 if kill else 0
        while tracker.active and waits:
            tracker.log({"x": 1.0})
            time.sleep(0.1)
            waits -= 1
        print("killed" if kill else "let", "active", tracker.active)
    if not kill:
        (record,) = settings.home.rglob("offline-run-*/run-*.wandb")
        print("recorded", b"train/loss" in record.read_bytes())
"""


def test_trainer_survives_the_death_of_wandb(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, **library_environment(home), "SAEBYEOK_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRAINING)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    for line in ("let active True", "recorded True", "killed active False"):
        assert line in result.stdout
    assert result.stderr.count("Weights & Biases: stopped logging") == 1
