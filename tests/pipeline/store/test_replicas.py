"""Records of replicas in a store on a disk and in a bucket: renewed, read, expired and withdrawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.store import replicas as module
from pipeline.store.artifacts import Store
from pipeline.store.replicas import LEASE, Replica, ReplicaRegistry

if TYPE_CHECKING:
    from tests.support.bucket import Bucket

ID = "0123456789abcdef"


#: Addresses that no client can call.
URLS = ("http://a:30a0", "http://a:99999", "ftp://a", "http://", "a:3000")


def replica(**fields: object) -> Replica:
    values = {"id": ID, "url": "http://a:3000", "host": "a", "pids": (1, 2), "deployment": 3, "releases": ()}
    return Replica.model_validate(values | fields)


def test_renewed_record_is_read_until_it_is_withdrawn(open_again: Callable[[], Store]) -> None:
    registry, other = ReplicaRegistry(open_again()), ReplicaRegistry(open_again())
    assert other.list() == []
    for number in (3, 4):
        registry.renew(replica(deployment=number))
        assert other.list() == [replica(deployment=number)]
        assert other.is_alive(replica())
    other.withdraw(ID)
    assert (registry.list(), registry.is_alive(replica())) == ([], False)
    registry.withdraw(ID)


def test_unreadable_record_hides_no_other(open_again: Callable[[], Store], caplog: pytest.LogCaptureFixture) -> None:
    store = open_again()
    ReplicaRegistry(store).renew(replica())
    record = replica().model_dump_json()
    damaged = {"damaged": "{", "another": record.replace(ID, "x")}
    damaged |= {f"url{number}": record.replace("http://a:3000", url) for number, url in enumerate(URLS)}
    for name, content in damaged.items():
        store.create(f"replicas/{name}.json", content.encode())
    assert ReplicaRegistry(store).list() == [replica()]
    assert caplog.text.count("is not a replica's record") == 2 + len(URLS)


def test_record_of_a_newer_version_is_read(store: Store) -> None:
    newer = replica().model_dump_json().replace("{", '{"zone": "b", ', 1)
    store.create(f"replicas/{ID}.json", newer.encode())
    assert ReplicaRegistry(store).list() == [replica()]


def test_lease_ends_by_the_clock_of_the_disk(store: Store) -> None:
    registry = ReplicaRegistry(store)
    registry.renew(replica())
    path = Path(store.uri) / f"replicas/{ID}.json"
    written = path.stat().st_mtime
    for age, alive in ((LEASE / 2, True), (LEASE + 5, False)):
        os.utime(path, (written - age, written - age))
        assert registry.is_alive(replica()) == alive
    # A file server whose clock is ahead.
    os.utime(path, (written + 3600, written + 3600))
    assert registry.is_alive(replica())


def test_lease_in_a_bucket_ends(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = ReplicaRegistry(Store(bucket.uri, tmp_path))
    registry.renew(replica())
    assert registry.is_alive(replica())
    monkeypatch.setattr(module, "LEASE", -1.0)
    assert not registry.is_alive(replica())
