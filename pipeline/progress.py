"""Progress of what is long: a bar where somebody watches, a line in the log now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

#: Seconds before a bar appears, so that what is over at once shows none, and between two lines of the log.
BAR_AFTER, LINE_EVERY = 1.0, 15.0


@contextmanager
def progress(what: str, total: int | None = None, *, bar: bool = True) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of rows that were done since its last call, of `total` where that is known.

    `what` is done with them, as "encoding". Unless `bar` says no, one stands on standard error while that is a
    terminal, and is gone afterwards; the log says `encoding: row 2048 of 150000`, which `pipeline.stack.follow` reads.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    watched = bar and sys.stderr.isatty()
    columns = TextColumn(f"      {what}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    drawn = Progress(*columns, console=Console(stderr=True), transient=True)
    task = drawn.add_task(what, total=total)
    started = said = time.monotonic()
    done, shown = 0, False

    def advance(rows: int) -> None:
        nonlocal done, said, shown
        done += rows
        now = time.monotonic()
        drawn.update(task, completed=done)
        if watched and not shown and now - started >= BAR_AFTER:
            drawn.start()
            shown = True
        if now - said >= LINE_EVERY:
            log.info("%s: row %d%s", what, done, f" of {total}" if total else "")
            said = now

    try:
        yield advance
    finally:
        if shown:
            drawn.stop()
