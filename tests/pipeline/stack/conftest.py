"""A taken port, processes of the stack, and a process of another program."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.stack.processes import Member, StackRecord, marked_processes, new_mark, start, stop

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    """Yield a process that does not belong to the stack."""
    process = subprocess.Popen(SLEEP)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Yield a port of 127.0.0.1 on which another program listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Callable[..., tuple[StackRecord, Member]]]:
    """Yield `sleeper(*command)`, which starts a marked process (one that sleeps by default) and returns its record."""
    records = []

    def begin(*command: str) -> tuple[StackRecord, Member]:
        mark = new_mark()
        member = start(command or SLEEP, mark=mark, log=tmp_path / "log", environment=os.environ, cwd=tmp_path)
        record = StackRecord(
            mark=mark, fingerprint="x", airflow_url="http://a", service_url="http://b", members={"one": member}
        )
        records.append(record)
        # A process that has just started shows no environment for a moment.
        while not marked_processes(mark):
            time.sleep(0.01)
        return record, member

    yield begin
    for record in records:
        stop(record, patience=1)
