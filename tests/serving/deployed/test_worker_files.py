"""Workers' states and the staged list, between real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.atomic_files import locked
from pipeline.config_file import ROOT
from serving.client.responses import WorkerState
from serving.deployed.worker_files import MAX_STAGED, UNREADABLE, StagedList, WorkerFile, live_workers
from tests.support.damage import damage_file, each_damage
from tests.support.disks import Calls

WORKER = """
import sys, time
from pathlib import Path
from serving.client.responses import WorkerState
from serving.deployed.worker_files import WorkerFile
file = WorkerFile(Path(sys.argv[1]))
file.write(WorkerState.model_validate_json(sys.argv[2]))
print("written", flush=True)
time.sleep(600)
"""


def state(pid: int) -> WorkerState:
    now = datetime.now(UTC)
    return WorkerState(pid=pid, started=now, heartbeat=now, deployment=3, live={}, staged=[], problems=[])


def test_only_live_workers_are_listed(tmp_path: Path) -> None:
    mine = WorkerFile(tmp_path)
    mine.write(state(os.getpid()))
    command = [sys.executable, "-c", WORKER, str(tmp_path), state(1).model_dump_json()]
    other = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"written\n"
        assert {worker.pid for worker in live_workers(tmp_path)} == {1, os.getpid()}
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()
    assert [worker.pid for worker in live_workers(tmp_path)] == [os.getpid()]
    assert len(list(tmp_path.iterdir())) == 2, "what the dead worker left is gone"
    mine.close()
    assert live_workers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_worker_without_a_state_is_at_no_deployment(tmp_path: Path) -> None:
    silent = WorkerFile(tmp_path)
    (listed,) = live_workers(tmp_path)
    assert (listed.pid, listed.deployment, listed.live, listed.problem) == (os.getpid(), 0, {}, UNREADABLE)
    silent.close()
    assert live_workers(tmp_path) == []


def test_the_staged_list_keeps_what_every_thread_adds(tmp_path: Path) -> None:
    refs = [f"release/nsmc/key/{number}" for number in range(MAX_STAGED)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(StagedList(tmp_path).add, refs))
    assert sorted(StagedList(tmp_path).read()) == refs
    left = StagedList(tmp_path).remove(refs[3])
    assert sorted(left) == sorted({*refs} - {refs[3]})
    assert StagedList(tmp_path).read() == left
    assert StagedList(tmp_path).remove("release/nsmc/key/unknown") == StagedList(tmp_path).read()


def test_staged_list_is_unique_and_drops_the_oldest(tmp_path: Path) -> None:
    staged = StagedList(tmp_path)
    assert staged.read() == []
    for ref in ("0", "1", "0"):
        staged.add(ref)
    assert staged.read() == ["1", "0"]
    for number in [*range(8), 0]:
        staged.add(str(number))
    # It is already in the full list, so no other entry is dropped.
    assert staged.read() == [*(str(number) for number in range(1, 8)), "0"]
    assert staged.add("new") == [*(str(number) for number in range(2, 8)), "0", "new"]


def test_staged_release_ends_at_its_deadline_unless_staged_again(tmp_path: Path) -> None:
    clock = [100.0]
    staged = StagedList(tmp_path, lambda: clock[0])
    staged.add("a")
    clock[0] += 599.0
    assert staged.add("b") == ["a", "b"]
    assert staged.add("a") == ["b", "a"]
    clock[0] += 599.0
    assert staged.read() == ["b", "a"]
    clock[0] += 1
    assert (staged.read(), staged.add("c")) == ([], ["c"])
    # The machine has restarted, and its clock with it.
    clock[0] = 5.0
    assert staged.read() == []


@each_damage
def test_damaged_staged_list_is_replaced(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    staged = StagedList(tmp_path)
    staged.add("release/nsmc/key/old")
    damage_file(tmp_path / "staged.json", damage)
    assert [staged.read(), StagedList(tmp_path).read()] == [[], []]
    assert caplog.text.count("staged.json is damaged") == 1
    assert staged.remove("release/nsmc/key/old") == []
    assert staged.add("release/nsmc/key/new") == staged.read() == ["release/nsmc/key/new"]


@each_damage
def test_damaged_worker_state_hides_no_other(tmp_path: Path, damage: str) -> None:
    files = [WorkerFile(tmp_path) for _ in range(2)]
    for pid, file in enumerate(files, 1):
        file.write(state(pid))
    damage_file(files[0]._state, damage)
    listed = {worker.problem: worker for worker in live_workers(tmp_path)}
    assert (listed[None].pid, listed[UNREADABLE].pid) == (2, os.getpid())
    assert listed[UNREADABLE].deployment == 0
    files[0].write(state(1))
    assert [worker.pid for worker in live_workers(tmp_path)] == [1, 2]
    for file in files:
        file.close()


def test_temporary_files_of_dead_workers_are_removed(tmp_path: Path) -> None:
    dead, alive = tmp_path / "1-dead.json", WorkerFile(tmp_path)
    alive.write(state(2))
    for path in (dead, dead.with_suffix(".lock"), tmp_path / ".1-dead.json.0a1b"):
        path.write_text("")
    assert [worker.pid for worker in live_workers(tmp_path)] == [2]
    assert {path.stem for path in tmp_path.iterdir()} == {alive._state.stem}
    alive.close()


def test_workers_are_listed_by_pid(tmp_path: Path) -> None:
    files = [WorkerFile(tmp_path) for _ in range(4)]
    for pid, file in zip((30, 9, 200, 1), files, strict=True):
        file.write(state(pid))
    assert [worker.pid for worker in live_workers(tmp_path)] == [1, 9, 30, 200]
    for file in files:
        file.close()


def test_missing_directories_are_created(tmp_path: Path) -> None:
    for _ in range(2):
        WorkerFile(tmp_path / "home" / "workers").close()
        with locked(tmp_path / "other" / "service" / "a.lock"):
            assert (tmp_path / "other" / "service" / "a.lock").exists()
    assert StagedList(tmp_path / "third" / "service").add("a") == ["a"]


def test_closed_worker_leaves_no_files_and_closes_twice(tmp_path: Path) -> None:
    file = WorkerFile(tmp_path)
    file.write(state(1))
    for _ in range(2):
        file.close()
        assert list(tmp_path.iterdir()) == []


def test_lock_file_is_locked_before_others_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, seen = Path.rename, list[str]()

    def watched(path: Path, target: Path) -> Path:
        seen.extend(item.suffix for item in tmp_path.iterdir())
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    WorkerFile(tmp_path).close()
    assert seen == [".new"]


def test_worker_that_is_closing_is_not_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, listed = WorkerFile(tmp_path), list[WorkerState]()
    file.write(state(1))
    with monkeypatch.context() as patched:
        unlink = Path.unlink

        def watched(path: Path, missing_ok: bool) -> None:
            unlink(path, missing_ok)
            patched.undo()
            listed.extend(live_workers(tmp_path))

        patched.setattr(Path, "unlink", watched)
        file.close()
    assert listed == []
    assert list(tmp_path.iterdir()) == []


def test_only_the_staged_list_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, calls = WorkerFile(tmp_path), Calls(monkeypatch)
    file.write(state(1))
    assert [name for name, _ in calls.seen] == ["replace"]
    StagedList(tmp_path).add("a")
    assert [name for name, _ in calls.seen[1:]] == ["fsync", "replace", "fsync"]
    file.close()


@pytest.mark.parametrize("left", ["nothing", "a lock that nobody holds"])
def test_state_without_a_living_worker_is_removed(tmp_path: Path, left: str) -> None:
    (tmp_path / "1-dead.json").write_text(state(1).model_dump_json())
    if left != "nothing":
        (tmp_path / "1-dead.lock").touch()
    assert live_workers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [StagedList.add, StagedList.remove])
def test_staged_list_changes_are_serialised(tmp_path: Path, change: Callable[[StagedList, str], object]) -> None:
    staged = StagedList(tmp_path)
    staged.add("old")
    begun = threading.Event()

    def work() -> None:
        begun.set()
        change(staged, "old")

    thread = threading.Thread(target=work)
    with locked(tmp_path / "staged.lock"):
        before = (tmp_path / "staged.json").stat().st_ino
        thread.start()
        begun.wait()
        thread.join(0.05)
        assert thread.is_alive()
        assert (tmp_path / "staged.json").stat().st_ino == before
    thread.join()
    assert (tmp_path / "staged.json").stat().st_ino != before
