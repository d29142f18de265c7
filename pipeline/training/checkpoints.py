"""Checkpoints of transformers' Trainer: when to write one, which are complete, and which one to resume from."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from pipeline.errors import TerminatedError, TrainingDivergedError
from pipeline.signals import on_sigterm
from pipeline.training.collectives import agree
from pipeline.training.shared_checkpoints import TAKEN_OVER, Uploads, download

log = logging.getLogger(__name__)

#: Marker file, written last. A checkpoint without it is incomplete, and the Trainer would resume from it all the same.
#: It holds the seconds of training and the size of each file.
COMPLETE = "COMPLETE"
#: Age at which the next checkpoint is due: `EVERY` seconds, or `TIMES` the time that writing the last one took.
EVERY, TIMES = 60.0, 25.0


class CheckpointCallback(TrainerCallback):
    """Callback that logs progress, requests checkpoints, marks complete ones and stops a diverged training.

    An interruption loses at most a minute of training, or 25 times the time of writing a checkpoint, if that is longer.
    Writing checkpoints therefore takes less than a twentieth of the time. On SIGTERM, for example when a machine is
    preempted, a checkpoint is written first.
    """

    def __init__(self, spent: float = 0.0, uploads: Uploads | None = None) -> None:
        """`spent` is the training time of earlier attempts, in seconds, up to the checkpoint to resume from.

        `uploads` brings checkpoints to a shared store.
        """
        self._uploads = uploads
        self._started = time.monotonic() - spent
        self._due = time.monotonic() + EVERY
        self._asked = 0.0
        self._terminated = False

    @property
    def seconds(self) -> float:
        """Seconds of training so far, in all attempts."""
        return time.monotonic() - self._started

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Log the step. Raises TrainingDivergedError if a loss or gradient is NaN or infinite."""
        values = logs or {}
        for name in ("loss", "grad_norm", "eval_loss"):
            if name in values and not math.isfinite(float(values[name])):
                raise TrainingDivergedError(
                    f"{name} is {values[name]} at step {state.global_step}: training has diverged; lower "
                    "train.learning_rate, or raise train.warmup"
                )
        line = ", ".join(f"{name} {float(value):.4g}" for name, value in values.items() if "flos" not in name)
        log.info("step %d of %d: %s", state.global_step, state.max_steps, line)

    @contextmanager
    def terminable(self) -> Iterator[None]:
        """Delay SIGTERM until the current step has ended and a checkpoint is written, then raise TerminatedError."""

        def terminate() -> None:
            log.warning("SIGTERM: writing a checkpoint before stopping")
            self._terminated = True

        with on_sigterm(terminate):
            yield
        if agree(self._terminated):
            raise TerminatedError("stopped by SIGTERM after the last step; rerun the command to resume")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint when it is time."""
        self._asked = time.monotonic()
        # The last step of an epoch is followed by its evaluation and then a checkpoint that includes the result.
        within = state.global_step % max(1, state.max_steps // state.num_train_epochs) != 0
        lost = self._uploads is not None and self._uploads.is_lost()
        if within and agree(self._terminated or lost or self._asked >= self._due):
            control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Exclude the evaluation from the time that the next checkpoint takes."""
        self._asked = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the new checkpoint as complete, and upload it if that is due.

        Raises TerminatedError if SIGTERM has arrived, or if another host has taken over.
        """
        # `agree` waits for all processes, so each of them has written its part.
        terminated = agree(self._terminated)
        lost = agree(self._uploads is not None and self._uploads.is_lost())
        if state.is_world_process_zero:
            seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", self.seconds)
            self._upload(state, last=terminated)
        now = time.monotonic()
        self._due = now + max(EVERY, TIMES * (now - self._asked))
        if terminated:
            raise TerminatedError(f"stopped by SIGTERM after step {state.global_step}; rerun the command to resume")
        if lost:
            raise TerminatedError(TAKEN_OVER)

    def _upload(self, state: TrainerState, *, last: bool) -> None:
        if self._uploads is None:
            return
        best = Path(state.best_model_checkpoint).name if state.best_model_checkpoint else None
        names = [f"checkpoint-{state.global_step}", *([best] if best else [])]
        (self._uploads.finish if last else self._uploads.offer)(names, state.global_step)


def seal(directory: Path, seconds: float) -> None:
    """Mark a checkpoint as complete; `seconds` is the training time up to it, in all attempts."""
    (directory / COMPLETE).unlink(missing_ok=True)
    sizes = {str(path.relative_to(directory)): path.stat().st_size for path in _files(directory)}
    mark = json.dumps({"seconds": round(seconds, 3), "sizes": sizes})
    (directory / COMPLETE).write_text(mark, encoding="utf-8")


def fetch_newer(work: Path) -> None:
    """Copy the checkpoint of another host from the store into `work` if it is newer than those there.

    Raises StoreError.
    """
    newest = newest_checkpoint(work)
    if download(work, _step(Path(newest)) if newest else 0) is not None:
        for directory in work.glob("checkpoint-*"):
            _adopt(directory)


def _adopt(directory: Path) -> None:
    """Let a checkpoint refer to the best checkpoint in its own parent directory, not in the other host's."""
    path = directory / TRAINER_STATE_NAME
    state = json.loads(path.read_text(encoding="utf-8"))
    if best := _best_of(directory):
        state["best_model_checkpoint"] = str(directory.parent / best)
        path.write_text(json.dumps(state), encoding="utf-8")
        seal(directory, float(_mark(directory)["seconds"]))


def newest_checkpoint(work: Path) -> str | None:
    """Return the newest complete checkpoint in `work`, and delete incomplete ones and those that refer to them.

    Each checkpoint refers to the best checkpoint so far, whose weights become the result. A checkpoint is useless
    without its best one.
    """
    known: list[Path] = []
    for path in sorted(work.glob("checkpoint-*"), key=_step):
        if _is_whole(path) and _best_of(path) in (None, path.name, *(item.name for item in known)):
            known.append(path)
        else:
            log.warning("%s deleted: it, or the best checkpoint that it refers to, is incomplete", path)
            shutil.rmtree(path)
    if not known:
        return None
    log.info("resuming from %s", known[-1])
    return str(known[-1])


def seconds_behind(checkpoint: str | None) -> float:
    """Return the seconds of training, in all attempts, up to a complete checkpoint; 0 for None."""
    return float(_mark(Path(checkpoint))["seconds"]) if checkpoint else 0.0


def _step(directory: Path) -> int:
    return int(directory.name.rsplit("-", 1)[1])


def _is_whole(directory: Path) -> bool:
    try:
        sizes: dict[str, int] = _mark(directory)["sizes"]
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _best_of(directory: Path) -> str | None:
    state = json.loads((directory / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    best = state["best_model_checkpoint"]
    return Path(best).name if best else None


def _mark(directory: Path) -> dict[str, Any]:
    mark: dict[str, Any] = json.loads((directory / COMPLETE).read_text(encoding="utf-8"))
    return mark


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
