"""Detached processes, recorded so that they and nothing else can be stopped later.

A recorded pid may belong to a stranger by then: every process of the stack carries a random mark in its
environment, its children inherit it, and only what carries the mark is ever signalled.
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

from pipeline.atomic_files import read_state, replace_state

MARK = "SAEBYEOK_STACK"
#: Seconds that processes get to finish after each signal, the first one gentle.
STOP_SECONDS = 20.0


class Member(BaseModel):
    """A process that was started, and under what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    created: float = Field(description="when it started, seconds since the epoch")
    log: Path


class Record(BaseModel):
    """`HOME/stack.json`: what runs, or ran."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mark: str
    fingerprint: str = Field(description="digest of the settings and code that it was started with")
    airflow_url: str
    service_url: str
    members: dict[str, Member] = {}


_RECORD = TypeAdapter(Record)


def new_mark() -> str:
    """A mark that no other process carries."""
    return secrets.token_hex(12)


def read_record(path: Path) -> Record | None:
    """The record of what was started with the home that holds `path`, or None.

    A damaged one is made again from what runs: it knows the mark and the addresses, and no member by name.
    """
    return read_state(path, _RECORD) or (_record_of_running(path.parent) if path.exists() else None)


def write_record(path: Path, record: Record) -> None:
    """Replace the record, whole or not at all."""
    replace_state(path, record.model_dump_json(indent=1))


def _record_of_running(home: Path) -> Record | None:
    for process in psutil.process_iter():
        found = _environment(process)
        if MARK in found and found.get("SAEBYEOK_HOME") == str(home) and process.pid != os.getpid():
            addresses = {name: found.get(f"SAEBYEOK_{name.upper()}", "") for name in ("airflow_url", "service_url")}
            return Record(mark=found[MARK], fingerprint="", **addresses)
    return None


def start(command: Sequence[str], *, mark: str, log: Path, environment: Mapping[str, str], cwd: Path) -> Member:
    """Start `command` in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # Airflow renames its processes, which by default overwrites the environment that the mark is read from.
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
    # It outlives us on purpose: without a return code, Popen warns when it goes that the process still runs.
    process.returncode = 0
    return Member(pid=process.pid, created=psutil.Process(process.pid).create_time(), log=log)


def is_running(member: Member, mark: str) -> bool:
    """Whether the recorded process still runs and is the one that was recorded."""
    try:
        process = psutil.Process(member.pid)
        return process.create_time() == member.created and _alive(process) and _mark_of(process) == mark
    except psutil.Error:
        return False


def marked_processes(mark: str) -> list[psutil.Process]:
    """Every process of this user that carries `mark`, this one left out."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _mark_of(process) == mark and _alive(process)
    ]


def stop(record: Record, patience: float = STOP_SECONDS) -> int:
    """Stop all that carries the record's mark: asked first, then told, then killed. Returns how many there were.

    The recorded processes are asked first, as they stop their children in good order themselves; and among
    them the one that was started first, which the others talk to, after the others.
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
            # psutil compares the start time too, and refuses where the pid has gone to another process.
            getattr(process, method)()
    psutil.wait_procs(processes, timeout=patience)


def _mark_of(process: psutil.Process) -> str | None:
    return _environment(process).get(MARK)


def _environment(process: psutil.Process) -> dict[str, str]:
    """The variables that a process was started with; none where it is another user's, or gone."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log, as text."""
    with suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return []
