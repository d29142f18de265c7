"""Checkpoints: when one is requested, which are complete, and the effects of SIGTERM and a diverged loss."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import TerminatedError, TrainingDivergedError
from pipeline.store.artifacts import Store
from pipeline.training.checkpoints import (
    COMPLETE,
    EVERY,
    TIMES,
    CheckpointCallback,
    fetch_newer,
    newest_checkpoint,
    seconds_behind,
)
from pipeline.training.shared_checkpoints import ALONE, SHARED, SNAPSHOT, TAKEN_OVER, Shared, Uploads, upload
from tests.support.clock import Clock

pytestmark = pytest.mark.torch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock(1000.0)
    monkeypatch.setattr("pipeline.training.checkpoints.time", SimpleNamespace(monotonic=found))
    return found


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return SimpleNamespace(output_dir=str(tmp_path))  # type: ignore[return-value]


@pytest.fixture
def sigterm() -> Iterator[Callable[[], None]]:
    """Send SIGTERM to this process; fail if there is no handler."""

    def nobody(*_: object) -> None:
        raise AssertionError("SIGTERM reached the earlier handler")

    before = signal.signal(signal.SIGTERM, nobody)
    yield lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert signal.signal(signal.SIGTERM, before) is nobody, "the earlier handler was not restored"


def state_at(step: int, steps: int = 10, epochs: int = 2, *, first: bool = True) -> TrainerState:
    return TrainerState(global_step=step, max_steps=steps, num_train_epochs=epochs, is_world_process_zero=first)


def asked(watch: CheckpointCallback, arguments: TrainingArguments, state: TrainerState) -> bool:
    """Return whether a checkpoint is requested after a step."""
    control = TrainerControl()
    watch.on_step_end(arguments, state, control)
    return control.should_save


def whole_checkpoint(work: Path, step: int, best: int | None = None) -> Path:
    """Create a checkpoint with the files that are checked before loading."""
    directory = work / f"checkpoint-{step}"
    directory.mkdir()
    state = {"best_model_checkpoint": str(work / f"checkpoint-{best}") if best else None}
    (directory / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    (directory / "model.safetensors").write_bytes(b"weights")
    sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
    (directory / COMPLETE).write_text(json.dumps({"seconds": step / 2, "sizes": sizes}), encoding="utf-8")
    return directory


def left_of(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


# --- when one is written ---


def test_checkpoint_is_asked_for_once_it_is_due(clock: Clock, arguments: TrainingArguments) -> None:
    watch = CheckpointCallback()
    clock.now += EVERY - 0.125
    assert not asked(watch, arguments, state_at(3))
    clock.now += 0.125
    assert asked(watch, arguments, state_at(3))


def test_last_step_of_an_epoch_requests_no_checkpoint(clock: Clock, arguments: TrainingArguments) -> None:
    watch = CheckpointCallback()
    clock.now += 2 * EVERY
    found = [step for step in range(1, 11) if asked(watch, arguments, state_at(step))]
    assert found == [1, 2, 3, 4, 6, 7, 8, 9]
    # The steps are not divisible by the epochs: 5 steps each, and one more.
    assert not asked(watch, arguments, state_at(5, steps=11))
    # An epoch of less than a step counts as one step, which is its last.
    assert not asked(watch, arguments, state_at(1, steps=2, epochs=3))


@pytest.mark.parametrize(("took", "wait"), [(2.0, 60.0), (2.25, 60.0), (2.5, 62.5), (10.0, 250.0)])
def test_next_checkpoint_waits_for_what_the_last_one_took(
    clock: Clock, arguments: TrainingArguments, tmp_path: Path, took: float, wait: float
) -> None:
    assert (EVERY, TIMES) == (60.0, 25.0)
    watch = CheckpointCallback()
    whole_checkpoint(tmp_path, 3)
    clock.now += 100
    asked(watch, arguments, state_at(3))
    clock.now += took
    watch.on_save(arguments, state_at(3), TrainerControl())
    clock.now += wait - 0.125
    assert not asked(watch, arguments, state_at(4))
    clock.now += 0.125
    assert asked(watch, arguments, state_at(4))


def test_evaluation_is_no_part_of_what_a_checkpoint_takes(
    clock: Clock, arguments: TrainingArguments, tmp_path: Path
) -> None:
    watch = CheckpointCallback()
    whole_checkpoint(tmp_path, 5)
    asked(watch, arguments, state_at(5))
    clock.now += 1000
    watch.on_evaluate(arguments, state_at(5), TrainerControl())
    clock.now += 1
    watch.on_save(arguments, state_at(5), TrainerControl())
    clock.now += EVERY
    assert asked(watch, arguments, state_at(6))


# --- SIGTERM ---


def test_sigterm_after_the_last_step_stops(sigterm: Callable[[], None]) -> None:
    with pytest.raises(TerminatedError, match="after the last step") as caught, CheckpointCallback().terminable():
        sigterm()
    assert caught.value.retryable


def test_without_sigterm_training_just_ends(sigterm: Callable[[], None]) -> None:
    with CheckpointCallback().terminable():
        pass


def test_error_while_terminable_stays_what_it_is(sigterm: Callable[[], None]) -> None:
    with pytest.raises(ZeroDivisionError), CheckpointCallback().terminable():  # noqa: PT012
        sigterm()
        raise ZeroDivisionError


def test_sigterm_has_a_checkpoint_written_first(
    clock: Clock,
    arguments: TrainingArguments,
    tmp_path: Path,
    sigterm: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = CheckpointCallback()
    directory = whole_checkpoint(tmp_path, 3)
    (directory / COMPLETE).unlink()
    with pytest.raises(TerminatedError, match="after step 3; rerun the command to resume"), watch.terminable():  # noqa: PT012
        assert not asked(watch, arguments, state_at(3))
        sigterm()
        assert "SIGTERM: writing a checkpoint before stopping" in caplog.text
        assert asked(watch, arguments, state_at(3))
        watch.on_save(arguments, state_at(3), TrainerControl())
    assert newest_checkpoint(tmp_path) == str(directory)


def test_in_another_thread_signals_are_left_alone(sigterm: Callable[[], None]) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def other() -> None:
        with CheckpointCallback().terminable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [before]


# --- which are complete ---


def test_newest_complete_checkpoint_is_used_others_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (9, 10, 200, 300, 400, 500, 600, 700):
        whole_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-200" / COMPLETE).unlink()
    (tmp_path / "checkpoint-300" / "model.safetensors").write_bytes(b"wei")
    (tmp_path / "checkpoint-400" / "model.safetensors").unlink()
    (tmp_path / "checkpoint-500" / COMPLETE).write_text('{"seconds": 8.5, "si', encoding="utf-8")
    (tmp_path / "checkpoint-600" / COMPLETE).write_text('{"seconds": 8.5}', encoding="utf-8")
    (tmp_path / "checkpoint-700" / "model.safetensors").write_bytes(b"weights and more")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert left_of(tmp_path) == ["checkpoint-10", "checkpoint-9"]
    assert seconds_behind(str(tmp_path / "checkpoint-10")) == 5.0
    removed = [record.args[0].name for record in caplog.records if record.levelno == logging.WARNING]  # type: ignore[union-attr,index]
    assert removed == [f"checkpoint-{step}" for step in (200, 300, 400, 500, 600, 700)]


def test_without_a_checkpoint_training_begins(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nothing") is None
    assert seconds_behind(None) == 0.0


def test_checkpoint_without_its_best_one_is_deleted(tmp_path: Path) -> None:
    # The result would have the weights of the best one.
    for step, best in ((10, 10), (20, 10), (30, 20)):
        whole_checkpoint(tmp_path, step, best)
    (tmp_path / "checkpoint-20" / "model.safetensors").write_bytes(b"wei")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert left_of(tmp_path) == ["checkpoint-10"]


def test_a_checkpoint_that_is_written_again_is_whole_again(tmp_path: Path, arguments: TrainingArguments) -> None:
    directory = whole_checkpoint(tmp_path, 10)
    (directory / COMPLETE).write_text(json.dumps({"seconds": 1, "sizes": {}}), encoding="utf-8")
    (directory / "below").mkdir()
    (directory / "below" / "optimizer.pt").write_bytes(b"moments")
    for spent in (1.0, 1e9):
        CheckpointCallback(spent).on_save(arguments, state_at(10), TrainerControl())
        assert newest_checkpoint(tmp_path) == str(directory)
        assert seconds_behind(str(directory)) == pytest.approx(spent, abs=1)
    sizes = json.loads((directory / COMPLETE).read_text("utf-8"))["sizes"]
    assert sizes.keys() == {"trainer_state.json", "model.safetensors", "below/optimizer.pt"}
    assert sizes["model.safetensors"] == len(b"weights")


def test_only_the_first_process_marks_a_checkpoint(tmp_path: Path, arguments: TrainingArguments) -> None:
    directory = whole_checkpoint(tmp_path, 10)
    (directory / COMPLETE).unlink()
    CheckpointCallback().on_save(arguments, state_at(10, first=False), TrainerControl())
    assert not (directory / COMPLETE).exists()


def test_seconds_count_earlier_attempts(clock: Clock) -> None:
    watch, first = CheckpointCallback(spent=30.0), CheckpointCallback()
    clock.now += 12.0
    assert (watch.seconds, first.seconds) == (42.0, 12.0)


# --- shared with other hosts ---


def share(store: Store, work: Path) -> Path:
    """Let the checkpoints of the training in `work` go to the store."""
    Shared(store.uri, str(store._cache), "nsmc", "a" * 16, attempt=1, run="test", seconds=0.0).write(work)
    return work


class Recorded(Uploads):
    """Uploads that are recorded instead: the checkpoints, the step and the options."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.started: list[tuple[list[str], int, tuple[str, ...]]] = []

    def _start(self, names: list[str], step: int, *options: str) -> None:
        assert (self._work / names[0] / COMPLETE).exists()
        self.started.append((names, step, options))
        self.process = subprocess.Popen(["true"])
        self.process.wait()


@pytest.fixture
def uploads(store: Store, tmp_path: Path) -> Recorded:
    return Recorded(share(store, tmp_path))


def test_checkpoint_is_offered_with_its_best_one(
    uploads: Recorded, arguments: TrainingArguments, tmp_path: Path
) -> None:
    watch = CheckpointCallback(uploads=uploads)
    for step, best in ((3, None), (6, 3), (7, 3)):
        (whole_checkpoint(tmp_path, step) / COMPLETE).unlink()
        state = state_at(step, first=step != 7)
        state.best_model_checkpoint = str(tmp_path / f"checkpoint-{best}") if best else None
        watch.on_save(arguments, state, TrainerControl())
    # Not by another process of the same training.
    assert uploads.started == [(["checkpoint-3"], 3, ()), (["checkpoint-6", "checkpoint-3"], 6, ())]


def test_last_checkpoint_before_a_stop_is_uploaded(
    uploads: Recorded, arguments: TrainingArguments, tmp_path: Path, sigterm: Callable[[], None]
) -> None:
    whole_checkpoint(tmp_path, 3)
    watch = CheckpointCallback(uploads=uploads)
    with pytest.raises(TerminatedError, match="after step 3"), watch.terminable():  # noqa: PT012
        sigterm()
        watch.on_save(arguments, state_at(3), TrainerControl())
    assert uploads.started == [(["checkpoint-3"], 3, (ALONE,))]


def test_training_that_another_host_took_over_stops(
    uploads: Recorded, arguments: TrainingArguments, tmp_path: Path
) -> None:
    whole_checkpoint(tmp_path, 3)
    watch = CheckpointCallback(uploads=uploads)
    assert not asked(watch, arguments, state_at(3))
    (tmp_path / SHARED).unlink()
    assert asked(watch, arguments, state_at(3))
    with pytest.raises(TerminatedError) as caught:
        watch.on_save(arguments, state_at(3), TrainerControl())
    assert str(caught.value) == TAKEN_OVER


def test_newer_checkpoint_of_another_host_is_used(store: Store, tmp_path: Path) -> None:
    theirs, ours = (share(store, tmp_path / name) for name in ("theirs", "ours"))
    for step in (1, 2):
        shutil.copytree(whole_checkpoint(theirs, step, best=1), theirs / SNAPSHOT / f"checkpoint-{step}")
        upload(theirs, step)
        fetch_newer(ours)
        newest = ours / f"checkpoint-{step}"
        assert newest_checkpoint(ours) == str(newest)
        # The trainer loads the best checkpoint by its path.
        state = json.loads((newest / "trainer_state.json").read_text(encoding="utf-8"))
        assert state == {"best_model_checkpoint": str(ours / "checkpoint-1")}
        assert seconds_behind(str(newest)) == step / 2
    whole_checkpoint(ours, 3)
    (ours / "checkpoint-2" / "ours").touch()
    fetch_newer(ours)
    assert (ours / "checkpoint-2" / "ours").exists()


def test_checkpoint_without_a_best_one_is_used_as_it_is(store: Store, tmp_path: Path) -> None:
    theirs, ours = (share(store, tmp_path / name) for name in ("theirs", "ours"))
    shutil.copytree(whole_checkpoint(theirs, 4), theirs / SNAPSHOT / "checkpoint-4")
    upload(theirs, 4)
    fetch_newer(ours)
    assert newest_checkpoint(ours) == str(ours / "checkpoint-4")


# --- log and errors ---


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figure_that_is_no_number_stops_for_good(arguments: TrainingArguments, name: str, value: float) -> None:
    logs: dict[str, Any] = {"epoch": 1.0, name: value}
    with pytest.raises(
        TrainingDivergedError, match=rf"^{name} is -?(nan|inf) at step 7: training has diverged"
    ) as caught:
        CheckpointCallback().on_log(arguments, state_at(7), TrainerControl(), logs)
    assert not caught.value.retryable


def test_figures_of_a_step_are_logged(arguments: TrainingArguments, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.training.checkpoints")
    logs = {"loss": 0.123456, "eval_accuracy": math.nan, "total_flos": 1e15}
    CheckpointCallback().on_log(arguments, state_at(7), TrainerControl(), logs)
    CheckpointCallback().on_log(arguments, state_at(8), TrainerControl())
    assert caplog.messages == ["step 7 of 10: loss 0.1235, eval_accuracy nan", "step 8 of 10: "]
