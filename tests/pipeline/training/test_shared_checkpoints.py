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
from pipeline.training.shared_checkpoints import ALONE, REST, Shared, Uploads, main


@pytest.fixture(autouse=True)
def no_timer() -> Iterator[None]:
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def rested(monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[list[int], list[float]]:
    """Run the process' code here on an upload of half a CPU second; return its changes of priority and its rests."""
    priorities: list[int] = []
    rests: list[float] = []

    def compute(work: Path, step: int) -> None:
        assert (work, step) == (Path("work"), 7)
        began = time.process_time()
        while time.process_time() - began < 0.5:
            pass

    monkeypatch.setattr(shared_checkpoints, "upload", compute)
    monkeypatch.setattr(os, "nice", priorities.append)
    monkeypatch.setattr("pipeline.training.shared_checkpoints.time.sleep", rests.append)
    monkeypatch.setattr("sys.argv", ["-m", "work", "7", *options])
    main()
    return priorities, rests


def test_upload_beside_a_training_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    priorities, rests = rested(monkeypatch)
    assert priorities == [19]
    # A hundred slices of CPU time; a busy machine may merge some of their signals.
    assert 20 <= len(rests) <= 101
    assert set(rests) == {REST}


def test_upload_after_a_training_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rested(monkeypatch, ALONE) == ([], [])


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
