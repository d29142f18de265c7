"""Signals to this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_sigterm(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` for each SIGTERM while the block runs; then the earlier handler is in place again.

    Outside the main thread, which alone may set signal handlers, the earlier handler stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
