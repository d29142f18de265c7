"""Forecast the duration of a training after its first steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.models.hardware import best_device, has_bf16
from pipeline.progress import format_duration

log = logging.getLogger(__name__)

#: Steps that are not measured, because torch and the memory warm up.
WARM_UP_STEPS = 2
#: Least steps and seconds to measure before the forecast.
STEPS, SECONDS = 3, 10.0


def forecasts() -> list[TrainerCallback]:
    """Return the callback for the forecast on a CPU without bf16, where training takes long; else no callback."""
    return [Forecast()] if best_device().type == "cpu" and not has_bf16() else []


class Forecast(TrainerCallback):
    """Logs the time that the remaining steps will take, as measured on the first ones."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` returns seconds."""
        self._now = now
        self._done = False
        self._steps = 0
        self._started = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log that training is slower here."""
        log.info("this CPU has no bf16, so training runs in fp32, which takes longer; an estimate of the time follows")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure a step, and log the forecast once."""
        self._steps += 1
        measured = self._steps - WARM_UP_STEPS
        if measured == 0:
            self._started = self._now()
        if self._done or measured < STEPS:
            return
        spent = self._now() - self._started
        if spent < SECONDS:
            return
        self._done = True
        left, each = state.max_steps - state.global_step, spent / measured
        log.info(
            "about %s for the remaining %d of %d steps, at %.3g s per step, without the evaluations",
            format_duration(left * each),
            left,
            state.max_steps,
            each,
        )
