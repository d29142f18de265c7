"""Distributed training whose processes or parent are terminated or killed: no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest

from pipeline.config_file import ROOT
from pipeline.errors import BaseModelError, ProcessError, TerminatedError
from pipeline.stages.train import train
from pipeline.tracking.tracker import Tracker
from pipeline.training.checkpoints import COMPLETE, newest_checkpoint
from pipeline.training.distributed import Order, spread
from pipeline.training.fine_tune import fit
from tests.support.running_service import eventually
from tests.support.small_pipeline import Road, open_road, small_recipe

pytestmark = pytest.mark.faults


@pytest.fixture
def road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Road:
    """Return a training that does not end by itself."""
    monkeypatch.setattr("pipeline.training.fine_tune.training_processes", lambda rows: 2)
    road = open_road(small_recipe("nsmc", train__epochs=100), tmp_path / "home", train=300, test=40)
    _ = road.tokenized
    return road


def newest(home: Path) -> int:
    """Return the step of the newest complete checkpoint; 0 if there is none."""
    found = [file.parent.name for file in (home / "work").glob("*/checkpoint-*/*") if file.name == COMPLETE]
    return max((int(name.rsplit("-", 1)[1]) for name in found), default=0)


@contextmanager
def once_it_trains(home: Path, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` once there is a new checkpoint."""
    before, over = newest(home), threading.Event()

    def wait() -> None:
        while newest(home) <= before:
            if over.wait(0.05):
                return
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_sigterm_writes_a_checkpoint_and_a_rerun_resumes(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    home = road.job.settings.home
    reached = [0]
    for _ in range(2):
        terminate = once_it_trains(home, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with terminate, pytest.raises(TerminatedError, match="rerun the command to resume"):
            train(road.job, road.tokenized)
        assert active_children() == []
        # The processes ended by themselves after the checkpoint.
        assert "forcefully" not in caplog.text
        (work,) = (path for path in (home / "work").iterdir() if path.is_dir())
        found = Path(newest_checkpoint(work) or "")
        # It includes the part of each process.
        assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in found.iterdir()}
        reached.append(newest(home))
    assert reached == sorted(set(reached))


def test_death_of_one_process_ends_all(road: Road) -> None:
    kill = once_it_trains(road.job.settings.home, lambda: os.kill(active_children()[1].pid or 0, signal.SIGKILL))
    with kill, pytest.raises(ProcessError, match="SIGKILL"):
        train(road.job, road.tokenized)
    assert active_children() == []


def test_error_of_all_processes_stops_the_stage(tmp_path: Path) -> None:
    road = open_road(small_recipe("nsmc"), tmp_path, train=300, test=40)
    tokenized = road.tokenized
    figures = tokenized.manifest.figures | {"base": {"base": str(tmp_path / "nowhere"), "revision": "0" * 64}}
    lost = replace(tokenized, manifest=tokenized.manifest.model_copy(update={"figures": figures}))
    work = tmp_path / "work" / "it"
    order = Order(partial(fit, road.job, {"tokenized": lost}, tmp_path / "draft", work), work, threads=1)
    with pytest.raises(BaseModelError, match="nowhere"):
        spread(order, Tracker(None), 2)


CODE = """
import sys
from pathlib import Path
if __name__ == "__main__":
    from pipeline.stages.train import train
    from pipeline.training import fine_tune
    from tests.support.small_pipeline import open_road, small_recipe
    fine_tune.training_processes = lambda rows: 2
    road = open_road(small_recipe("nsmc", train__epochs=100), Path(sys.argv[1]), train=300, test=40)
    train(road.job, road.tokenized)
"""


def test_killed_stage_ends_all_processes(tmp_path: Path) -> None:
    file, home = tmp_path / "stage.py", tmp_path / "home"
    file.write_text(CODE, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(file), str(home)], env=environment) as stage:
        try:
            eventually("a checkpoint", lambda: newest(home))
            started = psutil.Process(stage.pid).children(recursive=True)
        finally:
            stage.kill()
    assert len(started) >= 2
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
