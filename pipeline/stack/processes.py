"""Detached processes, recorded so that they, and no others, can be stopped later.

A recorded pid may be reused by another program. So every process of the stack has a random mark in its environment,
which its children inherit, and only processes with the mark are signalled.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pipeline.atomic_files import read_state, replace_file

MARK = "SAEBYEOK_STACK"
#: Seconds that processes get to finish after each signal; the first signal is SIGTERM.
STOP_SECONDS = 20.0


class Member(BaseModel):
    """A started process: pid, start time and log file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    created: float = Field(description="start time, seconds since the epoch")
    log: Path


class StackRecord(BaseModel):
    """`HOME/stack.json`: the processes that were started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mark: str
    fingerprint: str = Field(description="digest of the settings and the code at the start")
    airflow_url: str
    service_url: str
    members: dict[str, Member] = {}


_RECORD = TypeAdapter(StackRecord)


def new_mark() -> str:
    """Return a mark that no other process has."""
    return secrets.token_hex(12)


def read_record(path: Path) -> StackRecord | None:
    """Return the record at `path`, or None if there is none.

    A damaged record is rebuilt from the running processes of this home: it has the mark and the addresses, but no
    members.
    """
    return read_state(path, _RECORD) or (_record_of_running(path.parent) if path.exists() else None)


def write_record(path: Path, record: StackRecord) -> None:
    """Replace the record atomically."""
    replace_file(path, record.model_dump_json(indent=1))


def _record_of_running(home: Path) -> StackRecord | None:
    for process in psutil.process_iter():
        found = _environment(process)
        if MARK in found and found.get("SAEBYEOK_HOME") == str(home) and process.pid != os.getpid():
            addresses = {name: found.get(f"SAEBYEOK_{name.upper()}", "") for name in ("airflow_url", "service_url")}
            return StackRecord(mark=found[MARK], fingerprint="", **addresses)
    return None


def start(command: Sequence[str], *, mark: str, log: Path, environment: Mapping[str, str], cwd: Path) -> Member:
    """Start `command` in a new session, with its output appended to `log`, and return its record."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # Airflow renames its processes, which by default overwrites the environment. SPT_NOENV keeps the mark readable.
    marked = {**environment, MARK: mark, "SPT_NOENV": "1"}
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=marked,
            cwd=cwd,
            start_new_session=True,
        )
    # The process outlives this one on purpose. Without a return code, Popen would warn that it still runs.
    process.returncode = 0
    return Member(pid=process.pid, created=psutil.Process(process.pid).create_time(), log=log)


def is_running(member: Member, mark: str) -> bool:
    """Return whether the recorded process still runs; another process with the same pid does not count."""
    try:
        process = psutil.Process(member.pid)
        return process.create_time() == member.created and _alive(process) and _mark_of(process) == mark
    except psutil.Error:
        return False


def marked_processes(mark: str) -> list[psutil.Process]:
    """Return all processes of this user that have `mark`, except this one."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _mark_of(process) == mark and _alive(process)
    ]


def stop(record: StackRecord, patience: float = STOP_SECONDS) -> int:
    """Stop all processes with the record's mark, and return their number.

    The recorded processes get SIGTERM first, because they stop their children in good order, and the one that was
    started first gets it last, because the others depend on it. Then all that are left get SIGTERM, then SIGKILL.
    `patience` is the time in seconds that the recorded processes get.
    """
    everything = marked_processes(record.mark)
    order = [member.pid for member in record.members.values()]
    for pids in (order[1:], order[:1]):
        _signal([process for process in everything if process.pid in pids], "terminate", patience)
    for method in ("terminate", "kill"):
        _signal(marked_processes(record.mark), method, patience / 2)
    return len(everything)


def _signal(processes: list[psutil.Process], method: str, patience: float) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # psutil also compares the start time, and refuses to signal another process with the same pid.
            getattr(process, method)()
    psutil.wait_procs(processes, timeout=patience)


def _mark_of(process: psutil.Process) -> str | None:
    return _environment(process).get(MARK)


def _environment(process: psutil.Process) -> dict[str, str]:
    """Return the environment that a process was started with; empty if it belongs to another user or has ended."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def last_lines(log: Path, count: int) -> list[str]:
    """Return the last `count` lines of a log; empty if it cannot be read."""
    with suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return []
