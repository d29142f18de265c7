"""Weights & Biases: a run a stage, and nothing of it reaches the stage."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb

from pipeline import tracking
from pipeline.job import Job
from pipeline.recipe import load_recipe
from pipeline.settings import ROOT, library_environment
from pipeline.tracking import Tracker, choose_mode, tracked

pytestmark = pytest.mark.usefixtures("tracking_on")


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(load_recipe("nsmc", "embedded", sample=True))


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_key(address: str) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", address)

    return set_key


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """Answers that it is there, and refuses every request."""

    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def closed_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def runs_in(job: Job) -> list[Path]:
    return sorted((job.settings.home / "wandb").rglob("offline-run-*/run-*.wandb"))


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
        # Lists are no figures.
        assert "history" not in active.summary.keys()  # noqa: SIM118 - W&B's summary cannot be asked with `in`


def test_switched_off_it_writes_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with tracked(job, "train", {}) as tracker:
        assert not tracker.active
    assert not (job.settings.home / "wandb").exists()


def test_the_stages_own_exception_passes_and_the_run_is_finished(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
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
    warnings = [record.getMessage() for record in caplog.records if record.name == tracking.__name__]
    assert len(warnings) == 1
    assert "no W&B today" in warnings[0]


def test_a_directory_that_cannot_be_written_is_one_warning_and_nothing_elsewhere(
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
    assert len([record for record in caplog.records if record.name == tracking.__name__]) == 1
    assert list(elsewhere.iterdir()) == []


def test_a_server_that_is_away_means_offline(
    job: Job, picture: Path, with_key: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    with_key(closed_address())
    with tracked(job, "train", {}) as tracker:
        use(tracker, picture)
        assert tracker.active
    assert len(runs_in(job)) == 1
    assert "wandb sync" in caplog.text


def test_a_server_that_refuses_stops_nothing_and_spoils_nothing_after_it(
    job: Job, picture: Path, with_key: Callable[[str], None], refusing_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_key(refusing_server)
    with tracked(job, "train", {}) as tracker:
        use(tracker, picture)
        assert not tracker.active
    monkeypatch.delenv("WANDB_API_KEY")
    with tracked(job, "evaluate", {}) as tracker:
        use(tracker, picture)
        assert tracker.active
    assert len(runs_in(job)) == 1


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_the_mode_is_chosen_without_asking_where_there_is_nothing_to_ask(
    environment: dict[str, str], mode: str
) -> None:
    assert choose_mode(environment) == mode


def test_online_with_a_key_and_a_server(refusing_server: str) -> None:
    assert choose_mode({"WANDB_API_KEY": "k", "WANDB_BASE_URL": refusing_server}) == "online"


# In a process of its own: torch's import and the killed helper stay out of the other tests.
TRAINING = """
import sys
import psutil, torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from pipeline.job import open_job
from pipeline.settings import load_settings
from pipeline.tracking import tracked

kill = sys.argv[1] == "kill"

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
job = open_job("nsmc", settings=settings, sample=True)
arguments = TrainingArguments(str(settings.home / "out"), report_to="none", logging_steps=1, max_steps=4,
    per_device_train_batch_size=2, use_cpu=True, disable_tqdm=True, save_strategy="no")
with tracked(job, "train", {}) as tracker:
    callbacks = tracker.trainer_callbacks()
    Trainer(Line(), arguments, train_dataset=rows, callbacks=callbacks + ([KillWandb()] if kill else [])).train()
    print("active", tracker.active)
"""


@pytest.mark.parametrize("kill", ["let", "kill"])
def test_the_trainer_logs_into_the_run_and_survives_its_death(tmp_path: Path, kill: str) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, **library_environment(home), "SAEBYEOK_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRAINING), kill],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert f"active {kill == 'let'}" in result.stdout
    if kill == "let":
        (record,) = home.rglob("offline-run-*/run-*.wandb")
        assert b"train/loss" in record.read_bytes()
    else:
        assert result.stderr.count("Weights & Biases: stopped logging") == 1
