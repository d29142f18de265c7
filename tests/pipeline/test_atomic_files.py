"""Small state files: whole or not at all, on the disk when that matters, and none that stops a reader."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import psutil
import pytest
from pydantic import TypeAdapter

from pipeline.atomic_files import create_file, locked, read_state, replace_file
from tests.support.damage import damage_file, each_damage
from tests.support.disks import Calls
from tests.support.powercut import PowerCut

KIND = TypeAdapter(dict[str, list[int]])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state.json"
    replace_file(path, '{"numbers": [1, 2]}')
    return path


@pytest.fixture
def no_umask() -> Iterator[None]:
    umask = os.umask(0)
    yield
    os.umask(umask)


def test_read_state_returns_what_was_written(state: Path) -> None:
    assert read_state(state, KIND) == {"numbers": [1, 2]}
    assert [path.name for path in state.parent.iterdir()] == ["state.json"]


def test_read_state_without_a_file_is_none_and_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_state(tmp_path / "absent.json", KIND) is None
    assert caplog.messages == []


@each_damage
def test_read_state_of_a_damaged_file_is_logged_once(
    state: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage_file(state, damage)
    assert [read_state(state, KIND) for _ in range(3)] == [None] * 3
    (message,) = caplog.messages
    assert message.startswith(f"{state} is damaged and counts as absent: ")


def test_a_second_damage_is_logged_too(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    for changed in (1, 2):
        state.write_bytes(b"")
        os.utime(state, ns=(changed, changed))
        assert read_state(state, KIND) is None
    assert len(caplog.messages) == 2


def test_what_is_no_file_counts_as_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state.json").mkdir()
    assert read_state(tmp_path / "state.json", KIND) is None
    assert "Is a directory" in caplog.text


def test_state_below_a_file_counts_as_absent(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_state(state / "state.json", KIND) is None
    assert "Not a directory" in caplog.text


def test_first_problem_of_a_damaged_state_is_logged(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    state.write_text('{"numbers": ["one", null]}', encoding="utf-8")
    assert read_state(state, KIND) is None
    assert "unable to parse string as an integer" in caplog.text


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("write", [replace_file, create_file])
def test_only_the_umask_limits_the_default_rights(tmp_path: Path, write: Callable[[Path, str], object]) -> None:
    write(tmp_path / "record", "content")
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o666


def test_rights_of_a_private_file_hold_when_it_is_replaced(state: Path) -> None:
    assert stat.S_IMODE(state.stat().st_mode) & 0o600 == 0o600
    replace_file(state, "{}", mode=0o600)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


def test_content_is_on_the_disk_before_the_name(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    replace_file(state, "{}")
    (first, beside), second, third = calls.seen
    assert (first, second, third) == ("fsync", ("replace", beside), ("fsync", state.parent.name))
    assert beside.startswith(".state.json.")


def test_what_need_not_last_is_not_flushed(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    replace_file(state, "{}", durable=False)
    assert [name for name, _ in calls.seen] == ["replace"]


def test_a_failed_write_leaves_the_old_content_alone(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(state, '{"numbers": [3]}')
    assert read_state(state, KIND) == {"numbers": [1, 2]}
    assert [path.name for path in state.parent.iterdir()] == ["state.json"]


def test_created_file_is_private_and_whole(tmp_path: Path) -> None:
    assert create_file(tmp_path / "token", "아침\n", mode=0o600)
    assert (tmp_path / "token").read_text(encoding="utf-8") == "아침\n"
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_existing_file_is_not_created_again(tmp_path: Path) -> None:
    assert create_file(tmp_path / "token", b"first")
    assert not create_file(tmp_path / "token", b"second")
    assert (tmp_path / "token").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_created_content_is_on_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = PowerCut(tmp_path, monkeypatch)
    assert create_file(tmp_path / "record", b"content")
    assert (cut.least(tmp_path.with_name("after")) / "record").read_bytes() == b"content"


def test_durable_writes_leave_no_file_open(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    replace_file(tmp_path / "record", "content")
    assert psutil.Process().num_fds() == before


def test_lock_that_is_held_is_waited_for(tmp_path: Path) -> None:
    def take() -> None:
        with locked(tmp_path / "lock"):
            pass

    with ThreadPoolExecutor(1) as threads:
        with locked(tmp_path / "lock"):
            second = threads.submit(take)
            assert not wait([second], timeout=0.05).done
        second.result()


def test_directories_of_a_lock_are_created(tmp_path: Path) -> None:
    with locked(tmp_path / "home" / "service" / "lock") as file:
        assert file.name == str(tmp_path / "home" / "service" / "lock")


def test_lock_that_is_held_is_refused_without_waiting(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "home" / "lock"),
        pytest.raises(BlockingIOError),
        locked(tmp_path / "home" / "lock", wait=False),
    ):
        pytest.fail("two hold the lock")
    with locked(tmp_path / "home" / "lock", wait=False):
        assert (tmp_path / "home" / "lock").read_bytes() == b""
