"""Marked processes: all that carry the mark are stopped, and nothing else."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.errors import SettingsError
from pipeline.stack.processes import Member, Record, is_running, marked_processes, read_record, stop

Sleeper = Callable[..., tuple[Record, Member]]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
]


def first_line(log: Path) -> str:
    """The first line that a process says, awaited."""
    deadline = time.monotonic() + 30
    while not (text := log.read_text()).endswith("\n"):
        assert time.monotonic() < deadline, "the process says nothing"
        time.sleep(0.02)
    return text.strip()


def test_stop_ends_a_process_and_its_children_in_other_sessions(sleeper: Sleeper) -> None:
    record, member = sleeper(*PARENT)
    child = psutil.Process(int(first_line(member.log)))
    assert is_running(member, record.mark)
    assert stop(record) == 2
    assert not child.is_running()
    assert not is_running(member, record.mark)
    assert marked_processes(record.mark) == []


def test_a_process_that_ignores_sigterm_is_killed(sleeper: Sleeper) -> None:
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    record, member = sleeper(sys.executable, "-c", f"{ignoring}; print(1, flush=True); time.sleep(600)")
    assert first_line(member.log) == "1"
    stop(record, patience=0.2)
    assert not is_running(member, record.mark)


def test_a_recycled_pid_is_never_touched(sleeper: Sleeper, stranger: psutil.Process) -> None:
    record, member = sleeper()
    taken_over = member.model_copy(update={"pid": stranger.pid})
    same_instant = taken_over.model_copy(update={"created": stranger.create_time()})
    for recycled in (taken_over, same_instant):
        assert not is_running(recycled, record.mark)
    recycled_record = record.model_copy(update={"members": {"one": same_instant}})
    assert stop(recycled_record) == 1, "the marked process is found without its pid"
    assert stranger.is_running()


def test_a_damaged_record_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    path.write_text("{")
    with pytest.raises(SettingsError, match=re.escape(f"{path} is damaged")):
        read_record(path)
