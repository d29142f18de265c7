"""Progress of what is long."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys

import pytest

from pipeline import progress as module
from pipeline.progress import format_duration, progress

SLOW = """
import sys, time
from pipeline.progress import progress
with progress("encoding", 3) as advance:
    for _ in range(3):
        time.sleep({seconds})
        advance(1)
with progress("answering", 3, bar=False) as advance:
    for _ in range(3):
        time.sleep({seconds})
        advance(1)
sys.stderr.write("done")
"""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.21, "3.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (341.4, "5 min 41 s"),
        (7200, "120 min 0 s"),
    ],
)
def test_duration_has_minutes_from_sixty_seconds_on(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def on_a_terminal(seconds: float) -> str:
    """What a terminal gets."""
    leader, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", SLOW.format(seconds=seconds)], stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(leader, 4096):
                shown += chunk
        except OSError:  # how Linux says that nobody writes to it any more
            pass
        finally:
            os.close(leader)
    assert process.returncode == 0
    return shown.decode()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    shown = on_a_terminal(0.4)
    assert "encoding" in shown
    assert "3/3" in shown
    assert "answering" not in shown
    assert shown.endswith("\x1b[2Kdone"), "the line of the bar is cleared"


def test_what_is_over_at_once_shows_nothing() -> None:
    assert on_a_terminal(0.0) == "done"


def test_a_log_gets_lines_and_nothing_else(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    with caplog.at_level(logging.INFO), progress("encoding", 5) as advance:
        advance(2)
        advance(3)
    with caplog.at_level(logging.INFO), progress("reading") as advance:
        advance(7)
    assert caplog.messages == ["encoding: row 2 of 5", "encoding: row 5 of 5", "reading: row 7"]
    assert capsys.readouterr() == ("", "")
