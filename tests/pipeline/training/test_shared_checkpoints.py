"""The process that uploads checkpoints: it gives way to a training, and hurries if there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.training import shared_checkpoints
from pipeline.training.shared_checkpoints import ALONE, REST, WORK, Shared, Uploads, main


@pytest.fixture(autouse=True)
def no_timer() -> Iterator[None]:
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def manners(monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[list[int], float, set[float]]:
    """Run the process' code here; return its priorities, the CPU seconds until its timer rings, and its rests.

    The upload in it computes until the first rest. Rests are not counted: how often a timer rings is up to the machine.
    """
    priorities: list[int] = []
    rests: list[float] = []
    timers: list[float] = []

    def compute(work: Path, step: int) -> None:
        assert (work, step) == (Path("work"), 7)
        timers.append(signal.getitimer(signal.ITIMER_PROF)[1])
        began = time.process_time()
        while timers[0] and not rests and time.process_time() - began < 10:
            pass
        signal.setitimer(signal.ITIMER_PROF, 0)

    monkeypatch.setattr(shared_checkpoints, "upload", compute)
    monkeypatch.setattr(os, "nice", priorities.append)
    monkeypatch.setattr("pipeline.training.shared_checkpoints.time.sleep", rests.append)
    monkeypatch.setattr("sys.argv", ["-m", "work", "7", *options])
    main()
    return priorities, timers[0], set(rests)


def test_upload_beside_a_training_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert manners(monkeypatch) == ([19], pytest.approx(WORK), {REST})


def test_upload_after_a_training_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert manners(monkeypatch, ALONE) == ([], 0, set())


def test_only_the_last_upload_hurries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Started(subprocess.Popen[bytes]):
        def __init__(self, command: list[str]) -> None:
            started.append(command[3:])
            super().__init__(["true"])

    monkeypatch.setattr(shared_checkpoints.subprocess, "Popen", Started)
    Shared("store", "cache", "nsmc", "a" * 16, attempt=1, run="test", seconds=0.0).write(tmp_path)
    (tmp_path / "checkpoint-7").mkdir()
    uploads = Uploads(tmp_path)
    uploads.offer(["checkpoint-7"], 7)
    assert uploads.process
    uploads.process.wait()
    uploads.finish(["checkpoint-7"], 8)
    assert started == [[str(tmp_path), "7"], [str(tmp_path), "8", ALONE]]
