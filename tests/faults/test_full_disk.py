"""A disk that runs full during a stage: a sentence, nothing half-made, and it goes through once there is room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.stages import STAGES
from tests.cli import Place, sets
from tests.disks import Disk, small_disk
from tests.tiny import SMALL, anything_goes

pytestmark = pytest.mark.faults

#: Bytes: too little for any stage, and plenty.
FULL, PLENTY = 8 * 1024, 256 * 1024**2
LENIENT = SMALL | anything_goes("nsmc")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", FULL) as disk:
        yield disk


def shown(place: Place) -> list[str]:
    """All that the store shows, as paths of artifacts."""
    refs = [""]
    for _ in ("kind", "recipe", "key", "attempt"):
        refs = [f"{ref}/{name}".lstrip("/") for ref in refs for name in place.store.list(ref)]
    return refs


def fails_then_goes_through(place: Place, disk: Disk, stage: str) -> None:
    disk.resize(disk.used + FULL)
    before = shown(place)
    failed = place.raw(stage, "nsmc", *sets(LENIENT), "--json")
    assert failed.returncode == 1, (stage, failed.stdout, failed.stderr)
    error = json.loads(failed.stdout)["error"]
    assert "the disk is full; free some space and run again" in error["message"], (stage, error, failed.stderr)
    assert error["retryable"]
    # Last, and no traceback: W&B may have said before that it cannot write its log.
    assert failed.stderr.splitlines()[-1] == f"error: {error['message']}"
    assert shown(place) == before
    drafts = Path(place.store.uri) / ".drafts"
    assert not drafts.exists() or list(drafts.iterdir()) == []
    disk.resize(PLENTY)
    made = place.call(stage, "nsmc", *sets(LENIENT))
    assert shown(place) == sorted([*before, made["ref"]])


def test_a_store_on_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    place = Place(tmp_path / "home", SAEBYEOK_STORE=str(disk.path / "store"))
    for stage in STAGES:
        fails_then_goes_through(place, disk, stage.name)


def test_everything_on_a_full_disk(disk: Disk) -> None:
    place = Place(disk.path / "home")
    for stage in STAGES:
        fails_then_goes_through(place, disk, stage.name)
