"""The GPU check: it runs on a CPU, needs few packages, and detects a broken computation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu
from pipeline.config_file import ROOT
from serving.engine.cuda_graphs import Shape

pytestmark = pytest.mark.torch

#: Packages that the check must not need; its machine has only torch, transformers and ONNX Runtime.
BLOCKED = ("airflow", "bentoml", "datasets", "great_expectations", "wandb")
RUN = f"""
import socket, sys
sys.modules |= dict.fromkeys({BLOCKED!r})
def refuse(*_):
    raise OSError("no network")
socket.socket.connect = refuse
from benchmarks import gpu
gpu.WAYS = tuple(way for way in gpu.WAYS if "compiled" not in way.name)
sys.exit(gpu.main(["--check", "--shapes", gpu.TINY, "--device", "cpu"]))
"""


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> gpu.RandomModel:
    made = gpu.RandomModel(gpu.TINY, "cpu", tmp_path_factory.mktemp("gpu"))
    # Computed before a test breaks the code that computes them.
    assert made.graphs
    return made


def way(name: str) -> gpu.ComputePath:
    return next(way for way in gpu.WAYS if way.name == name)


def limit(name: str) -> float:
    return gpu.bound(gpu.TINY, way(name).precision, backward=way(name).backward)


@pytest.mark.slow
def test_check_with_few_libraries_passes_on_a_cpu() -> None:
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()[1:]
    assert sum(line.endswith(" ok") for line in lines) == 5
    (left_out,) = (line for line in lines if line.endswith("not run here: no CUDA device"))
    assert "graph, packed, fp16" in left_out


def scaled(model: Any) -> None:
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.self.value.weight.mul_(1.2)


def shifted(model: Any) -> None:
    """Break packing: shift the rows of a batch by one token."""
    encoder = model.bert.encoder
    forward = encoder.forward
    encoder.forward = lambda states, attention_mask=None, **other: forward(states.roll(1, 0), attention_mask, **other)


@pytest.mark.parametrize("fault", [scaled, shifted])
def test_a_broken_step_is_above_its_bound(subject: gpu.RandomModel, fault: Callable[[Any], None]) -> None:
    for precision in ("fp32", "bf16"):
        found = gpu.of_training(subject, precision, gpu.pack_rows, fault)
        assert found > gpu.bound(gpu.TINY, precision, backward=True)


def test_a_gradient_that_is_missing_is_a_mismatch(subject: gpu.RandomModel) -> None:
    _, gradients = subject.reference
    fewer = dict(list(gradients.items())[1:])
    assert not gpu.Found("way", gpu.TINY, gpu.of_gradients(fewer, gradients), 1.0).passed


def test_a_graph_that_sees_padding_is_above_its_bound(
    subject: gpu.RandomModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmasked(session: Any) -> Callable[[Any], Any]:
        return lambda feed: session.run(None, feed | {"attention_mask": np.ones_like(feed["attention_mask"])})[0]

    monkeypatch.setattr(gpu, "plain", unmasked)
    assert way("graph, padded, fp16").measure(subject) > limit("graph, padded, fp16")


def test_replay_of_the_previous_rows_exceeds_its_bound(
    subject: gpu.RandomModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shape, "run", lambda self, feed: self._output.numpy()[: len(feed["input_ids"])])
    assert way("graph, padded, fp16, replayed").measure(subject) > limit("graph, padded, fp16, replayed")


def test_a_mismatch_is_said_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = (gpu.ComputePath("sound", "fp32", lambda _: 1e-9), gpu.ComputePath("broken", "fp32", lambda _: float("nan")))
    monkeypatch.setattr(gpu, "WAYS", ways)
    assert gpu.main(["--check", "--shapes", gpu.TINY, "--device", "cpu"]) == 1
    _, sound, broken = capsys.readouterr().out.splitlines()
    assert sound.endswith("ok")
    assert broken.endswith("MISMATCH")


def test_bounds_are_roundings_times_the_root_of_their_number() -> None:
    # 2 layers with 12 roundings and 4 outside them: 28 of 2^-11. Forward and backward: three times as many of 2^-9.
    assert gpu.bound("2x32", "fp16") == pytest.approx(4 * 28**0.5 / 2048)
    assert gpu.bound("2x32", "bf16", backward=True) == pytest.approx(4 * 84**0.5 / 512)
    # In fp32, sums of 128 terms are rounded too.
    assert gpu.bound("2x32", "fp32") == pytest.approx(4 * (28 * 128) ** 0.5 / 2**24)
