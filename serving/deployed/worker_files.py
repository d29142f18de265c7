"""State that the workers of one machine share, in small files below HOME/service."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.atomic_files import locked, read_state, replace_file
from serving.client.responses import WorkerState

#: Maximum number of staged releases; of more, the oldest is dropped.
MAX_STAGED = 8
#: Seconds after which a staged release is unloaded unless it is staged again. A killed deployer does not unstage it.
STAGED_SECONDS = 600.0
UNREADABLE = "the state of this worker cannot be read; if this lasts, free disk space below SAEBYEOK_HOME"
_DEADLINES = TypeAdapter(list[tuple[str, float]])
_STATE = TypeAdapter(WorkerState)


class WorkerFile:
    """The state file of one worker, and a lock file that the worker holds while it lives."""

    def __init__(self, directory: Path) -> None:
        """`directory` is shared by the workers of one machine."""
        directory.mkdir(parents=True, exist_ok=True)
        self._state = directory / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._lock = self._state.with_suffix(".lock")
        new = self._state.with_suffix(".new")
        self._held = new.open("w")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        # Others delete a lock file that nobody holds.
        new.rename(self._lock)

    def write(self, state: WorkerState) -> None:
        """Write the worker's state. Raises OSError if the disk refuses it."""
        # Others read it only while this process lives, so it need not survive a power loss.
        replace_file(self._state, state.model_dump_json(), durable=False)

    def close(self) -> None:
        """Remove the files."""
        self._lock.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        self._held.close()


def live_workers(directory: Path) -> list[WorkerState]:
    """Return the states of all live workers, sorted by pid; remove the files of dead workers.

    A worker whose state cannot be read, for example because the disk was full, counts as one without a deployment.
    """
    states = []
    for path in {file.with_suffix(".json") for pattern in ("*.json", "*.lock") for file in directory.glob(pattern)}:
        lock = path.with_suffix(".lock")
        if _is_held(lock):
            states.append(read_state(path, _STATE) or _unknown(lock))
        else:
            for left in (path, lock, *directory.glob(f".{path.name}.*")):
                left.unlink(missing_ok=True)
    return sorted(states, key=lambda state: state.pid)


def _unknown(lock: Path) -> WorkerState:
    """Return the state of the worker that holds `lock`, if its own cannot be read."""
    now = datetime.now(UTC)
    pid = int(lock.name.partition("-")[0])
    return WorkerState(
        pid=pid, started=now, heartbeat=now, deployment=0, live={}, staged=[], problem=UNREADABLE, problems=[]
    )


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


class StagedList:
    """Refs of the releases that every worker of this machine must keep loaded in addition to the live ones.

    Each has a deadline on the machine's monotonic clock, which its processes share.
    """

    def __init__(self, directory: Path, now: Callable[[], float] = time.monotonic) -> None:
        """`directory` is shared by the workers of one machine; `now` returns the time in seconds."""
        self._path = directory / "staged.json"
        self._lock = directory / "staged.lock"
        self._now = now

    def read(self) -> list[str]:
        """Return the refs whose deadline has not passed, oldest first."""
        return list(self._deadlines())

    def add(self, ref: str) -> list[str]:
        """Add `ref`, or extend its deadline, and return the new list."""
        with locked(self._lock):
            others = {item: until for item, until in self._deadlines().items() if item != ref}
            return self._write(others | {ref: self._now() + STAGED_SECONDS})

    def remove(self, ref: str) -> list[str]:
        """Remove `ref` and return the new list."""
        with locked(self._lock):
            return self._write({item: until for item, until in self._deadlines().items() if item != ref})

    def _deadlines(self) -> dict[str, float]:
        now = self._now()
        # A later deadline was set before the machine restarted, and with it the clock.
        found = read_state(self._path, _DEADLINES) or []
        return {ref: until for ref, until in found if now < until <= now + STAGED_SECONDS}

    def _write(self, deadlines: dict[str, float]) -> list[str]:
        newest = list(deadlines.items())[-MAX_STAGED:]
        replace_file(self._path, _DEADLINES.dump_json(newest))
        return [ref for ref, _ in newest]
