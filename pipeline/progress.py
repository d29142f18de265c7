"""Progress of what is long: a bar where somebody watches, a line in the log now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

log = logging.getLogger(__name__)

#: Seconds before a bar appears, so that what is over at once shows none, and between two lines of the log.
BAR_AFTER, LINE_EVERY = 1.0, 15.0


def clock(seconds: float) -> str:
    """A duration as people say it: `3.2 s`, `5 min 41 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


@contextmanager
def progress(what: str, total: int | None = None, *, bar: bool = True) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of rows that were done since its last call, of `total` where that is known.

    `what` is done with them, as "encoding". Unless `bar` says no, one stands on standard error while that is a
    terminal, and is gone afterwards; the log says `encoding: row 2048 of 150000`, which
    `pipeline.stack.follow_run` reads.
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
    """A function to call with the number of rows that are done."""
    # Here and not at the top: only where somebody watches.
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
