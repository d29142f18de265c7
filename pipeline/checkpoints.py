"""Checkpoints of transformers' Trainer: which are whole, which one to go on from, and what a run says meanwhile."""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import TrainingDivergedError

log = logging.getLogger(__name__)

#: Written into a checkpoint last: one without it is half written, and the Trainer would take it all the same.
COMPLETE = "COMPLETE"


class Watch(TrainerCallback):
    """Says how training goes, marks whole checkpoints, and stops a run that has diverged."""

    def __init__(self, spent: float = 0.0) -> None:
        """`spent` are the seconds that earlier attempts took up to the checkpoint that this one goes on from."""
        self._started = time.monotonic() - spent

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

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint just written as whole; the mark says after how many seconds."""
        directory = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        (directory / COMPLETE).write_text(f"{self.seconds:.3f}", encoding="utf-8")


def newest_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint in `work`; half-written ones are removed."""
    whole = []
    for path in work.glob("checkpoint-*"):
        if (path / COMPLETE).is_file():
            whole.append(path)
        else:
            shutil.rmtree(path)
    if not whole:
        return None
    newest = max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]))
    log.info("going on from %s", newest)
    return str(newest)


def seconds_behind(checkpoint: str | None) -> float:
    """Seconds of training behind a whole checkpoint, in all attempts."""
    return float((Path(checkpoint) / COMPLETE).read_text(encoding="utf-8")) if checkpoint else 0.0
