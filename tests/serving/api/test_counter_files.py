"""The directory with the counters of `/metrics`."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.api.counter_files import SPACE, counter_directory
from tests.support.disks import small_disk


@pytest.fixture
def below_home(tmp_path: Path) -> Path:
    return tmp_path / "home" / "bentoml" / "prometheus_multiproc_dir"


def test_homes_have_different_directories_in_memory(tmp_path: Path) -> None:
    homes = [tmp_path / name for name in ("one", "two")]
    one, two = (counter_directory(home, tmp_path) for home in homes)
    assert {one.parent, two.parent} == {tmp_path}
    assert one != two
    assert one == counter_directory(tmp_path / "two" / ".." / "one", tmp_path)


def test_counters_are_below_home_without_memory(tmp_path: Path, below_home: Path) -> None:
    assert counter_directory(tmp_path / "home", tmp_path / "absent") == below_home


def test_counters_are_below_home_if_memory_is_short(tmp_path: Path, below_home: Path) -> None:
    with small_disk(tmp_path / "memory", SPACE - 4096) as memory:
        assert counter_directory(tmp_path / "home", memory.path) == below_home
        memory.resize(SPACE)
        assert counter_directory(tmp_path / "home", memory.path).parent == memory.path


def test_directory_of_another_user_is_not_used(
    tmp_path: Path, below_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter_directory(tmp_path / "home", tmp_path).mkdir()
    assert counter_directory(tmp_path / "home", tmp_path) != below_home
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    assert counter_directory(tmp_path / "home", tmp_path) == below_home
