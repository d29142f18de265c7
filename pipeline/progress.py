"""Progress of long operations: a bar on a terminal, and log lines at intervals."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

log = logging.getLogger(__name__)

#: Seconds until the bar appears (a short operation shows none), and seconds between log lines.
BAR_AFTER, LINE_EVERY = 1.0, 15.0


def format_duration(seconds: float) -> str:
    """Return a duration in readable form: `3.2 s`, `5 min 41 s`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


@contextmanager
def progress(what: str, total: int | None = None, *, bar: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of rows processed since its last call.

    `what` names the operation, such as "encoding"; `total` is the number of rows, if known. With `bar`, standard error
    shows a bar while it is a terminal. The log gets lines such as `encoding: row 2048 of 150000`, which
    `pipeline.stack.follow_run` parses.
    """
    said, done = time.monotonic(), 0
    with _bar(what, total) if bar and sys.stderr.isatty() else nullcontext() as draw:

        def advance(rows: int) -> None:
            nonlocal done, said
            done += rows
            if draw:
                draw(done)
            now = time.monotonic()
            if now - said >= LINE_EVERY:
                log.info("%s: row %d%s", what, done, f" of {total}" if total else "")
                said = now

        yield advance


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the total number of processed rows."""
    # Imported here because only a terminal needs it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(f"      {what}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    drawn = Progress(*columns, console=Console(stderr=True), transient=True)
    task = drawn.add_task(what, total=total)
    started = time.monotonic()

    def draw(done: int) -> None:
        drawn.update(task, completed=done)
        if time.monotonic() - started >= BAR_AFTER:
            drawn.start()

    try:
        yield draw
    finally:
        if drawn.live.is_started:
            drawn.stop()
