"""Drafts of killed runs are removed; those of running ones stay, whatever the clock says."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_file import ROOT
from pipeline.store.files import drafts
from pipeline.store.files.drafts import STALE_DRAFT_SECONDS, open_draft, remove_stale_drafts

MINUTE = 60.0


def touch(directory: Path, moment: float) -> None:
    for path in (*directory.rglob("*"), directory):
        os.utime(path, (moment, moment))


@pytest.fixture
def leave(tmp_path: Path) -> Callable[[str, float], Path]:
    """Return `leave(name, age)`, which creates an unlocked draft written `age` seconds ago."""

    def leave(name: str, age: float) -> Path:
        directory = tmp_path / "drafts" / name
        (directory / "deep").mkdir(parents=True)
        (directory / "deep" / "weights.bin").write_bytes(b"half")
        touch(directory, time.time() - age)
        return directory

    return leave


def test_a_draft_is_new_and_gone_afterwards(tmp_path: Path) -> None:
    with open_draft(tmp_path / "a" / "drafts") as one, open_draft(tmp_path / "a" / "drafts") as other:
        assert one != other
        assert one.parent == other.parent == tmp_path / "a" / "drafts"
        (one / "half.bin").write_bytes(b"half")
    assert list((tmp_path / "a" / "drafts").iterdir()) == []


def test_draft_is_deleted_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), open_draft(tmp_path):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("age", "stays"),
    [
        (0.0, True),
        (STALE_DRAFT_SECONDS - MINUTE, True),
        (STALE_DRAFT_SECONDS + MINUTE, False),
        # Written before the clock was set back.
        (-STALE_DRAFT_SECONDS + MINUTE, True),
        (-STALE_DRAFT_SECONDS - MINUTE, False),
    ],
)
def test_unlocked_draft_is_removed_after_a_day(leave: Callable[[str, float], Path], age: float, stays: bool) -> None:
    directory = leave("killed", age)
    remove_stale_drafts(directory.parent, now=time.time())
    assert directory.exists() == stays


def test_draft_of_exactly_a_day_ago_stays(leave: Callable[[str, float], Path]) -> None:
    directory, moment = leave("killed", 0.0), 1_700_000_000.0
    touch(directory, moment)
    for now in (moment + STALE_DRAFT_SECONDS, moment - STALE_DRAFT_SECONDS):
        remove_stale_drafts(directory.parent, now=now)
        assert directory.exists()


def test_draft_is_locked_until_it_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise a process whose clock is wrong could delete it as it is created.
    held: list[bool] = []
    remove, delete = drafts.remove_stale_drafts, shutil.rmtree

    def watch(*arguments: Any, call: Callable[..., None], **options: Any) -> None:
        (directory,) = tmp_path.iterdir()
        held.append(drafts._is_held(directory))
        call(*arguments, **options)

    monkeypatch.setattr(drafts, "remove_stale_drafts", partial(watch, call=remove))
    monkeypatch.setattr(shutil, "rmtree", partial(watch, call=delete))
    with open_draft(tmp_path):
        pass
    assert held == [True, True]


def test_a_day_is_a_day() -> None:
    assert STALE_DRAFT_SECONDS == 86_400


def test_the_newest_file_of_a_draft_counts(leave: Callable[[str, float], Path]) -> None:
    # Written by a version without locks.
    busy = leave("busy", STALE_DRAFT_SECONDS + MINUTE)
    os.utime(busy / "deep" / "weights.bin")
    remove_stale_drafts(busy.parent, now=time.time())
    assert busy.exists()


def test_a_new_draft_makes_stale_ones_go(leave: Callable[[str, float], Path]) -> None:
    killed, busy = leave("killed", STALE_DRAFT_SECONDS + MINUTE), leave("busy", MINUTE)
    with open_draft(killed.parent) as made:
        assert not killed.exists()
        assert busy.exists()
        assert made.exists()


@pytest.mark.parametrize("jump", [STALE_DRAFT_SECONDS + MINUTE, -STALE_DRAFT_SECONDS - MINUTE])
def test_active_draft_survives_a_clock_jump(tmp_path: Path, jump: float) -> None:
    with open_draft(tmp_path) as running:
        (running / "checkpoint").mkdir()
        touch(running, time.time() - jump)
        with open_draft(tmp_path):
            assert (running / "checkpoint").is_dir()


#: Holds a draft until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from pipeline.store.files.drafts import open_draft
with open_draft(Path(sys.argv[1])) as draft:
    print(draft, flush=True)
    sys.stdin.read()
"""


def test_draft_lock_ends_with_its_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        draft = Path(holder.stdout.readline().strip())
        later = time.time() + STALE_DRAFT_SECONDS + MINUTE
        remove_stale_drafts(tmp_path, now=later)
        assert draft.is_dir()
        holder.kill()
    remove_stale_drafts(tmp_path, now=later)
    assert not draft.exists()


def test_without_file_locks_age_decides(leave: Callable[[str, float], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    killed, busy = leave("killed", STALE_DRAFT_SECONDS + MINUTE), leave("busy", MINUTE)
    with open_draft(killed.parent) as made:
        assert made.is_dir()
    assert list(killed.parent.iterdir()) == [busy]


def test_draft_deleted_meanwhile_is_skipped(
    leave: Callable[[str, float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = leave("one", STALE_DRAFT_SECONDS + MINUTE), leave("two", STALE_DRAFT_SECONDS + MINUTE)
    look = Path.lstat
    gone: list[Path] = []

    def lstat(path: Path) -> os.stat_result:
        if not gone:
            gone.append(path)
            raise FileNotFoundError
        return look(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    remove_stale_drafts(first.parent, now=time.time())
    assert gone == [directory for directory in (first, second) if directory.exists()]


def test_draft_that_cannot_be_opened_stays(
    leave: Callable[[str, float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    another_users = leave("another-users", STALE_DRAFT_SECONDS + MINUTE)
    open_file, refused = os.open, []

    def refuse_once(*arguments: Any, **options: Any) -> int:
        if not refused:
            refused.append(arguments)
            raise PermissionError(13, "Permission denied")
        return open_file(*arguments, **options)

    monkeypatch.setattr(os, "open", refuse_once)
    remove_stale_drafts(another_users.parent, now=time.time())
    assert another_users.exists()


def test_draft_that_cannot_be_removed_is_skipped(
    leave: Callable[[str, float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    killed = leave("killed", STALE_DRAFT_SECONDS + MINUTE)
    monkeypatch.setattr(os, "rmdir", refuse)
    remove_stale_drafts(killed.parent, now=time.time())
    assert killed.exists()


def test_no_descriptor_is_left_open(leave: Callable[[str, float], Path]) -> None:
    parent = leave("killed", STALE_DRAFT_SECONDS + MINUTE).parent
    with open_draft(parent), open_draft(parent):
        assert len(open_below(parent)) == 2
    assert open_below(parent) == []


def open_below(parent: Path) -> list[Path]:
    opened = [descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir()]
    return [path for path in opened if path.is_relative_to(parent)]
