"""Weights & Biases: one run per stage, whose failures never affect the stage."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import wandb

from pipeline.config_file import ROOT
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.tracking import runs as tracking
from pipeline.tracking.run_directories import run_directories
from pipeline.tracking.runs import tracked
from pipeline.tracking.sync import sync
from pipeline.tracking.tracker import Tracker
from pipeline.tracking.wandb_api import RETRIES
from tests.support.running_service import eventually, free_url
from tests.support.wandb_http import DROP, HANG, LIMIT
from tests.support.wandb_server import ENTITY, KEY, WandbServer

pytestmark = [pytest.mark.usefixtures("tracking_on"), pytest.mark.server]


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(load_recipe("nsmc", "embedded", sample=True))


def runs_in(job: Job) -> list[Path]:
    return sorted((job.settings.home / "wandb").rglob("offline-run-*/run-*.wandb"))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name in (tracking.__name__, "pipeline.tracking.tracker")
    ]


def use(tracker: Tracker, picture: Path) -> None:
    tracker.log({"loss": 0.5}, step=3)
    tracker.log({"loss": 0.4})
    tracker.summary({"accuracy": 0.9})
    tracker.table("history", ["epoch", "loss"], [[1, 0.5], [2, 0.4]])
    tracker.image("plot", picture)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "plot.png"
    Image.new("RGB", (8, 8), "white").save(path)
    return path


def test_a_stage_is_recorded_offline_without_a_key(job: Job, picture: Path) -> None:
    with tracked(job, "train", {"seed": 7}) as tracker:
        active = wandb.run
        assert active is not None
        use(tracker, picture)
        assert tracker.active
        assert tracker.address is None
        assert (active.name, active.group, active.job_type, active.project) == (
            "nsmc-train",
            "test-run",
            "train",
            "saebyeok",
        )
        assert active.config["seed"] == 7
        assert "sample" in (active.tags or ())
    assert wandb.run is None
    (record,) = runs_in(job)
    content = record.read_bytes()
    assert b"accuracy" in content
    assert b"train/global_step" in content


def test_gpu_metrics_are_recorded_offline(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "cuda_devices", lambda: 1)
    monkeypatch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
    with tracked(job, "train", {}):
        # Under the names of W&B's panels; those of a GPU are `gpu.0.gpu` and `gpu.0.memoryAllocated`.
        eventually("a point of the curves", lambda: b"proc.memory.percent" in runs_in(job)[0].read_bytes())


def test_cpu_metrics_are_not_recorded_offline(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "cuda_devices", lambda: 0)
    with tracked(job, "train", {}):
        assert wandb.run is not None
        assert wandb.run.settings.x_disable_stats


def test_two_stages_are_two_runs(job: Job) -> None:
    for stage in ("validate", "train"):
        with tracked(job, stage, {}) as tracker:
            tracker.log({"x": 1.0})
    assert len(runs_in(job)) == 2


def test_figures_are_named_by_their_path(job: Job) -> None:
    figures = {"test": {"accuracy": {"value": 0.9}}, "promote": True, "history": [{"loss": 1.0}]}
    with tracked(job, "evaluate", {}) as tracker:
        tracker.summary(figures)
        active = wandb.run
        assert active is not None
        assert active.summary["test/accuracy/value"] == 0.9
        assert active.summary["promote"]
        # Lists are not figures.
        assert "history" not in active.summary.keys()  # noqa: SIM118 - W&B's summary cannot be asked with `in`


def test_switched_off_it_writes_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with tracked(job, "train", {}) as tracker:
        assert not tracker.active
    assert not (job.settings.home / "wandb").exists()


def test_exception_of_the_stage_finishes_the_run(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int | None] = []
    finish = wandb.Run.finish
    monkeypatch.setattr(
        wandb.Run, "finish", lambda run, exit_code=None: (codes.append(exit_code), finish(run, exit_code))
    )
    with pytest.raises(ZeroDivisionError), tracked(job, "train", {}):
        raise ZeroDivisionError
    assert codes == [1]
    assert wandb.run is None


def test_a_failing_init_is_one_warning(
    job: Job, picture: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**settings: object) -> None:
        raise RuntimeError("no W&B today")

    monkeypatch.setattr(wandb, "init", fail)
    with tracked(job, "train", {}) as tracker:
        use(tracker, picture)
        assert not tracker.active
        assert tracker.trainer_callbacks() == []
    (warning,) = warnings(caplog)
    assert "no W&B today" in warning


def test_unwritable_directory_logs_one_warning(
    job: Job, picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "system-tmp"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    job.settings.home.mkdir(parents=True, exist_ok=True)
    (job.settings.home / "wandb").write_text("a file where the directory should be")
    with tracked(job, "train", {}) as tracker:
        use(tracker, picture)
        assert not tracker.active
    assert len(warnings(caplog)) == 1
    assert list(elsewhere.iterdir()) == []


def test_without_the_package_a_stage_goes_on(
    job: Job, picture: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracked(job, "deploy", {}) as tracker:
        use(tracker, picture)
        assert not tracker.active
    assert len(warnings(caplog)) == 1


def test_online_run_arrives_at_a_slow_server(job: Job, picture: Path, wandb_online: WandbServer) -> None:
    recorded = threading.Event()
    wandb_online.meanwhile = lambda operation: operation == "Viewer" or recorded.wait(60)
    with tracked(job, "train", {"seed": 7}) as tracker:
        use(tracker, picture)
        # Nothing has been answered.
        assert wandb_online.runs == {}
        address = tracker.address
        recorded.set()
    run = wandb_online.find_run("nsmc-train")
    assert address == f"{wandb_online.url}/{ENTITY}/saebyeok/runs/{run.name}"
    assert (run.config["seed"], run.summary["accuracy"], run.exit_code) == (7, 0.9, 0)
    assert [point["loss"] for point in run.history.values() if "loss" in point] == [0.5, 0.4]
    assert {Path(name).parts[:2] for name in run.files if name.startswith("media")} == {
        ("media", "images"),
        ("media", "table"),
    }
    assert [item.done for item in run_directories(job.settings.home)] == [True]


def test_online_failed_stage_is_a_failed_run(job: Job, wandb_online: WandbServer) -> None:
    wandb_online.fail = lambda operation, body: (
        LIMIT if operation == "UpsertBucket" and wandb_online.counts[operation] == 1 else None
    )
    with pytest.raises(ZeroDivisionError), tracked(job, "train", {}):
        raise ZeroDivisionError
    assert wandb_online.find_run("nsmc-train").exit_code == 1
    assert [item.done for item in run_directories(job.settings.home)] == [True]


def test_unreachable_server_means_offline(
    job: Job, picture: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", free_url())
    with tracked(job, "train", {}) as tracker:
        use(tracker, picture)
        assert tracker.active
    assert len(runs_in(job)) == 1
    (warning,) = warnings(caplog)
    assert "saebyeok sync" in warning


@pytest.mark.parametrize("failure", [LIMIT, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (HANG, DROP))])
def test_server_death_loses_no_data(
    job: Job,
    picture: Path,
    wandb_online: WandbServer,
    failure: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tracking, "FINISH_TIMEOUT_SECONDS", 6.0)
    wandb_online.fail = lambda operation, body: failure if wandb_online.counts["UpsertBucket"] else None
    with tracked(job, "train", {"seed": 7}) as tracker:
        use(tracker, picture)
        assert tracker.active
    assert max(wandb_online.counts.values()) <= 1 + RETRIES
    assert wandb_online.runs == {}
    (warning,) = warnings(caplog)
    assert "saebyeok sync" in warning
    wandb_online.fail = lambda operation, body: None
    assert sync(job.settings, job.store).failed == 0
    run = wandb_online.find_run("nsmc-train")
    assert (run.config["seed"], run.summary["accuracy"]) == (7, 0.9)
    assert [point["loss"] for point in run.history.values() if "loss" in point] == [0.5, 0.4]


RECORDS = """
import sys
from pipeline.job import open_job
from pipeline.settings import load_settings
from pipeline.tracking.runs import tracked

job = open_job("nsmc", settings=load_settings(), sample=True)
with tracked(job, "train", {}) as tracker:
    tracker.log({"loss": 1.0})
    print("recording", flush=True)
    sys.stdin.read()
"""


def processes_of(home: Path) -> Iterator[psutil.Process]:
    """Return every process with `home` as SAEBYEOK_HOME, whatever its parent."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SAEBYEOK_HOME") == str(home):
                yield process


def test_a_killed_stage_leaves_no_process_behind(job: Job, wandb_online: WandbServer) -> None:
    """A killed stage ends W&B's process, the upload and the upload's own W&B process."""
    home = job.settings.home
    with subprocess.Popen(
        [sys.executable, "-c", RECORDS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stage:
        assert stage.stdout is not None
        assert stage.stdout.readline() == "recording\n"
        eventually("the upload is at work", lambda: wandb_online.counts["UpsertBucket"])
        started = [" ".join(process.cmdline()) for process in processes_of(home)]
        assert sum("wandb-core" in command for command in started) == 2, started
        assert sum("pipeline.tracking.upload" in command for command in started) == 1, started
        stage.kill()
    assert stage.returncode == -signal.SIGKILL
    eventually("all its processes have ended", lambda: not list(processes_of(home)))
