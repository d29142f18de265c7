"""After a power cut, an artifact or record is complete or absent, and present if it was reported as written."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from pipeline.store.artifacts import MANIFEST, Store
from pipeline.store.files.backends import LocalFiles
from tests.support.powercut import PowerCut
from tests.support.stores import FILES, publish, read_all


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def power(disk: Path, monkeypatch: pytest.MonkeyPatch) -> PowerCut:
    return PowerCut(disk, monkeypatch)


def open_store(disk: Path) -> Store:
    return Store(str(disk / "a" / "store"), disk.parent / "cache")


def test_published_artifact_survives(power: PowerCut, disk: Path, tmp_path: Path) -> None:
    made = publish(open_store(disk))
    after = open_store(power.least(tmp_path / "after"))
    assert read_all(after.open(made.ref)) == FILES


def test_a_second_attempt_survives(power: PowerCut, disk: Path, tmp_path: Path) -> None:
    publish(open_store(disk))
    made = publish(open_store(disk))
    after = open_store(power.least(tmp_path / "after"))
    assert read_all(after.open(made.ref)) == FILES


def test_visible_artifact_is_complete(power: PowerCut, disk: Path, tmp_path: Path) -> None:
    appeared = []
    moments = itertools.count()

    def check() -> None:
        after = open_store(power.most(tmp_path / f"moment-{next(moments)}"))
        for ref in after.refs("train", "nsmc"):
            appeared.append(ref)
            assert read_all(after.open(ref)) == FILES

    power.before = check
    made = publish(open_store(disk))
    assert set(appeared) == {made.ref}, "no moment lay between the rename and its flush"
    assert next(moments) > len(FILES)


def test_a_record_survives(power: PowerCut, disk: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        assert open_store(disk).create(f"deployments/00000{number}.json", b"content")
    after = open_store(power.least(tmp_path / "after"))
    assert after.list("deployments") == ["000001.json", "000002.json"]
    assert after.read("deployments/000001.json") == after.read("deployments/000002.json") == b"content"


def test_visible_record_is_complete(power: PowerCut, disk: Path, tmp_path: Path) -> None:
    seen: list[bytes | None] = []

    def check() -> None:
        after = open_store(power.most(tmp_path / f"moment-{len(seen)}"))
        seen.append(after.read("deployments/000001.json"))

    power.before = check
    open_store(disk).create("deployments/000001.json", b"content")
    assert set(seen) == {None, b"content"}


def test_a_beat_waits_for_no_disk(power: PowerCut, disk: Path) -> None:
    store, ref = open_store(disk), "leases/training/000001.beat"
    store.replace(ref, b"first")
    flushes: list[None] = []
    power.before = lambda: flushes.append(None)
    store.replace(ref, b"second")
    assert store.read(ref) == b"second"
    assert flushes == []


def test_two_writers_may_create_the_directories_at_once(power: PowerCut, disk: Path) -> None:
    def overtake() -> None:
        if (disk / "a").is_dir():
            (disk / "a" / "store").mkdir(exist_ok=True)

    power.before = overtake
    assert open_store(disk).create("deployments/000001.json", b"content")


def test_deletion_flushes_the_manifest_removal_first(
    power: PowerCut, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(disk)
    made = publish(store)
    remove, left = os.unlink, []

    def unlink(path: str | Path, **options: int) -> None:
        if Path(path).name != MANIFEST:
            after = open_store(power.least(tmp_path / f"moment-{len(left)}"))
            left.append(after.read(f"{made.ref}/{MANIFEST}"))
        remove(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    LocalFiles(disk / "a" / "store").remove(made.ref, first=MANIFEST)
    assert set(left) == {None}
    assert store.list("train/nsmc") == []
