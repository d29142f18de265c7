"""Progress that a person can follow, on a terminal and in a log file alike. Standard library only."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

#: Seconds between two lines about the same thing where the output is no terminal.
LINE_SECONDS = 15.0


class Progress:
    """Lines that stay, and between them one that says where it stands.

    That one is rewritten on a terminal; elsewhere it is a line now and then.
    """

    def __init__(self, out: TextIO) -> None:
        """Write to `out`, a terminal or not."""
        self._out = out
        self._live = out.isatty()
        self._start = time.monotonic()
        self._last = self._start

    def step(self, text: str) -> None:
        """A line that stays, with the time since the start before it."""
        self.say(f"{self._elapsed()}  {text}")
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Text that stays, as it is."""
        self._write(f"\r\033[K{text}\n" if self._live else f"{text}\n")

    def show(self, text: str) -> None:
        """Where it stands: overwritten by what comes next, or left out where a line came just before."""
        line = f"{self._elapsed()}  {text}"
        if self._live:
            self._write(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}")
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            self._write(f"{line}\n")

    def _elapsed(self) -> str:
        return clock(time.monotonic() - self._start)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def clock(seconds: float) -> str:
    """Minutes and seconds, as 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
