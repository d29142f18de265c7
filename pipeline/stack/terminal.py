"""Progress output for a terminal or a log file. Standard library only."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from pipeline.progress import format_duration

#: Minimum seconds between progress lines if the output is not a terminal.
LINE_SECONDS = 15.0


class Progress:
    """Prints permanent lines, and a status line after them.

    On a terminal the status line is overwritten; elsewhere it is printed every `LINE_SECONDS`.
    """

    def __init__(self, out: TextIO, begun: float | None = None) -> None:
        """Create a progress output that writes to `out` and counts from `begun`, a time of the monotonic clock."""
        self._out = out
        self._live = out.isatty()
        self._last = time.monotonic()
        self._start = self._last if begun is None else begun

    def step(self, text: str) -> None:
        """Print a permanent line, prefixed with the time since the start."""
        self.say(self._timed(text))
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print a permanent line without a prefix."""
        self._write(f"\r\033[K{text}\n" if self._live else f"{text}\n")

    def show(self, text: str) -> None:
        """Show the status line until the next output. Elsewhere than on a terminal, print it every `LINE_SECONDS`."""
        line = self._timed(text)
        if self._live:
            self._write(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}")
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            self._write(f"{line}\n")

    def _timed(self, text: str) -> str:
        # Aligned up to `59 min 59 s`.
        return f"{format_duration(time.monotonic() - self._start):>11}  {text}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
