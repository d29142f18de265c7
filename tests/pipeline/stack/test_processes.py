"""Marked processes: all processes with the mark are stopped, and no others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.stack.processes import (
    Member,
    StackRecord,
    is_running,
    marked_processes,
    read_record,
    stop,
    write_record,
)
from tests.support.damage import damage_file, each_damage

Sleeper = Callable[..., tuple[StackRecord, Member]]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
]


def first_line(log: Path) -> str:
    """Wait for the first line of a process's output and return it."""
    deadline = time.monotonic() + 30
    while not (text := log.read_text()).endswith("\n"):
        assert time.monotonic() < deadline, "the process prints nothing"
        time.sleep(0.02)
    return text.strip()


def test_stop_ends_process_and_its_detached_children(sleeper: Sleeper) -> None:
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


@each_damage
def test_damaged_record_is_made_again_from_what_runs(
    tmp_path: Path, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = tmp_path / "stack.json"
    monkeypatch.setenv("SAEBYEOK_HOME", str(tmp_path))
    monkeypatch.setenv("SAEBYEOK_SERVICE_URL", "http://service")
    monkeypatch.setenv("SAEBYEOK_AIRFLOW_URL", "http://airflow")
    record, member = sleeper()
    assert read_record(path) is None, "no record, though something runs"
    write_record(path, record)
    assert read_record(path) == record
    damage_file(path, damage)
    made = read_record(path)
    assert made == StackRecord(
        mark=record.mark, fingerprint="", airflow_url="http://airflow", service_url="http://service", members={}
    )
    assert stop(made) == 1
    assert not is_running(member, record.mark)
    assert read_record(path) is None, "nothing runs any longer"


def test_damaged_record_leaves_another_home_alone(tmp_path: Path, sleeper: Sleeper) -> None:
    sleeper()
    (tmp_path / "stack.json").write_text("{")
    assert read_record(tmp_path / "stack.json") is None
