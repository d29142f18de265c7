"""Checkpoints of transformers' Trainer: when one is written, which are whole, and which one to go on from."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from pipeline.errors import TerminatedError, TrainingDivergedError
from pipeline.training.collectives import agree

log = logging.getLogger(__name__)

#: Written into a checkpoint last: one without it is half written, and the Trainer would take it all the same. It says
#: after how many seconds that was, and how large each file is.
COMPLETE = "COMPLETE"
#: A checkpoint is written when the last one is so many seconds old, or so many times as old as it took to write.
EVERY, TIMES = 60.0, 25.0


class Watch(TrainerCallback):
    """Says how training goes, has checkpoints written and marks whole ones, and stops a run that has diverged.

    At most a minute's work is lost, or what is lost is 25 times what a checkpoint takes, so that all of them take less
    than a twentieth of the time. SIGTERM, as from a machine that is taken away, has one written first.
    """

    def __init__(self, spent: float = 0.0) -> None:
        """`spent` are the seconds that earlier attempts took up to the checkpoint that this one goes on from."""
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
        """Write a line to the log. Raises TrainingDivergedError at a loss or gradient that is no number."""
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
        """While this is open SIGTERM waits for a step and a checkpoint to end, and is a TerminatedError then."""
        if threading.current_thread() is not threading.main_thread():
            # Signals are not ours to handle.
            yield
            return

        def terminate(*_: object) -> None:
            log.warning("SIGTERM: a checkpoint is written before this ends")
            self._terminated = True

        before = signal.signal(signal.SIGTERM, terminate)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if agree(self._terminated):
            raise TerminatedError("stopped by SIGTERM after the last step; the same again goes on from there")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint when it is time."""
        self._asked = time.monotonic()
        # After the last step of an epoch comes its evaluation, and then a checkpoint that knows of it.
        within = state.global_step % max(1, state.max_steps // state.num_train_epochs) != 0
        if within and agree(self._terminated or self._asked >= self._due):
            control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What evaluation takes is no part of what the checkpoint after it takes."""
        self._asked = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint just written as whole. Raises TerminatedError where SIGTERM has come."""
        # By then each of several processes has written its part.
        terminated = agree(self._terminated)
        if state.is_world_process_zero:
            self._seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
        now = time.monotonic()
        self._due = now + max(EVERY, TIMES * (now - self._asked))
        if terminated:
            raise TerminatedError(
                f"stopped by SIGTERM after step {state.global_step}; the same again goes on from there"
            )

    def _seal(self, directory: Path) -> None:
        (directory / COMPLETE).unlink(missing_ok=True)
        sizes = {str(path.relative_to(directory)): path.stat().st_size for path in _files(directory)}
        mark = json.dumps({"seconds": round(self.seconds, 3), "sizes": sizes})
        (directory / COMPLETE).write_text(mark, encoding="utf-8")


def newest_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint in `work`; half-written and truncated ones are removed, and what builds on them.

    Every one names the best so far, whose weights are kept at the end: without that it is worth nothing.
    """
    known: list[Path] = []
    for path in sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1])):
        if _is_whole(path) and _best_of(path) in (None, path.name, *(item.name for item in known)):
            known.append(path)
        else:
            log.warning("%s is not whole, or the best before it is not: removed", path)
            shutil.rmtree(path)
    if not known:
        return None
    log.info("going on from %s", known[-1])
    return str(known[-1])


def seconds_behind(checkpoint: str | None) -> float:
    """Seconds of training behind a whole checkpoint, in all attempts."""
    return float(_mark(Path(checkpoint))["seconds"]) if checkpoint else 0.0


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
