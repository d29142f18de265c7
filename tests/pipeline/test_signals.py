"""SIGTERM during a block, and after it."""

from __future__ import annotations

import signal
import threading

import pytest

from pipeline.signals import on_sigterm


def test_sigterm_is_handled_only_within_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    received: list[str] = []
    with pytest.raises(ZeroDivisionError), on_sigterm(lambda: received.append("SIGTERM")):  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        assert received == ["SIGTERM"]
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_keep_the_earlier_handler() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with on_sigterm(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
