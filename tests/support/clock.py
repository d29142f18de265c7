"""A clock that the test sets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Stands for `time.monotonic` or `time.perf_counter`; `now` is in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now
