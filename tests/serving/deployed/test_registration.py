"""The record of a replica: one of its workers renews it, and its address."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.settings import Settings
from pipeline.store.artifacts import Store
from pipeline.store.replicas import LEASE, Replica, ReplicaRegistry
from serving.client.responses import LoadProblem, WorkerState
from serving.deployed.follower import LogSource
from serving.deployed.registration import Registration, advertised_url, replica_id
from serving.deployed.worker_files import WorkerFile
from tests.support.damage import damage_file, each_damage


def worker(pid: int, deployment: int, *loaded: str, problems: tuple[str, ...] = ()) -> WorkerState:
    now = datetime.now(UTC)
    return WorkerState(
        pid=pid,
        started=now,
        heartbeat=now,
        deployment=deployment,
        live={},
        staged=list(loaded),
        problems=[LoadProblem(release=ref, type="OSError", message="no space", retryable=True) for ref in problems],
    )


def test_one_worker_renews_the_record_and_a_successor_follows(settings: Settings, store: Store) -> None:
    first, second = Registration(settings, store), Registration(settings, store)
    assert first.id() == second.id()
    assert [first.is_mine(), second.is_mine(), first.is_mine()] == [True, False, True]
    first.renew([worker(7, 2, "a", "b"), worker(8, 1, "b", "c", problems=("d",))])
    (record,) = ReplicaRegistry(store).list()
    assert (record.id, record.url, record.host) == (first.id(), settings.service_url, socket.gethostname())
    assert (record.pids, record.deployment, record.releases, record.problem) == ((7, 8), 1, ("b",), "d: no space")
    first.close()
    assert ReplicaRegistry(store).list() == []
    assert second.is_mine()
    second.close()


def test_unchanged_record_is_written_only_when_it_is_due(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = Registration(settings, store)
    written: list[str] = []
    monkeypatch.setattr(ReplicaRegistry, "renew", lambda _, replica: written.append(replica.deployment))
    for deployment in (1, 1, 2, 2):
        registration.renew([worker(1, deployment)])
    assert written == [1, 2]
    registration._due = 0.0
    registration.renew([worker(1, 2)])
    assert written == [1, 2, 2]


def test_failed_write_is_repeated_only_when_it_is_due(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = Registration(settings, store)
    tries: list[int] = []

    def refuse(_: ReplicaRegistry, replica: Replica) -> None:
        tries.append(replica.deployment)
        raise StoreError("the store is read-only")

    with monkeypatch.context() as patch:
        patch.setattr(ReplicaRegistry, "renew", refuse)
        for deployment in (1, 1, 2):
            with pytest.raises(StoreError, match="the store is read-only"):
                registration.renew([worker(1, deployment)])
    assert tries == [1]
    registration._due = 0.0
    for _ in range(2):
        registration.renew([worker(1, 2)])
    assert [record.deployment for record in ReplicaRegistry(store).list()] == [2]


def test_replica_on_a_full_disk_renews_its_record(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = LogSource(settings, store)
    monkeypatch.setattr(WorkerFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        source.report(worker(1, 1))
    assert [record.id for record in ReplicaRegistry(store).list()] == [source.replica]
    source.close()


def test_copied_home_gets_an_id_of_its_own(settings: Settings, store: Store, tmp_path: Path) -> None:
    first = Registration(settings, store)
    first.renew([worker(1, 1)])
    shutil.copytree(settings.home, tmp_path / "copy")
    copied = {"home": tmp_path / "copy", "service_url": "http://127.0.0.1:3001"}
    second = Registration(settings.model_copy(update=copied), store)
    assert second.id() == first.id()
    second.renew([worker(2, 1)])
    for _ in range(2):
        for registration in (first, second):
            registration._due = 0.0
            registration.renew([worker(1, 1)])
    assert second.id() != first.id()
    found = {record.id: record.url for record in ReplicaRegistry(store).list()}
    assert found == {first.id(): settings.service_url, second.id(): "http://127.0.0.1:3001"}


def test_replica_with_a_new_address_keeps_its_id_after_the_lease(settings: Settings, store: Store) -> None:
    first = Registration(settings, store)
    first.renew([worker(1, 1)])
    record = Path(store.uri) / "replicas" / f"{first.id()}.json"
    old = record.stat().st_mtime - LEASE - 10
    os.utime(record, (old, old))
    moved = Registration(settings.model_copy(update={"service_url": "http://127.0.0.1:3001"}), store)
    moved.renew([worker(1, 1)])
    (found,) = ReplicaRegistry(store).list()
    assert (found.id, found.url) == (first.id(), "http://127.0.0.1:3001")


def test_store_that_does_not_answer_prevents_no_end(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreError("the bucket is away")

    registration = Registration(settings, store)
    assert registration.is_mine()
    monkeypatch.setattr(ReplicaRegistry, "withdraw", away)
    registration.close()
    successor = Registration(settings, store)
    assert successor.is_mine()
    successor.close()


@pytest.mark.parametrize(
    ("service", "advertised", "url"),
    [
        ("http://127.0.0.1:3000", "", "http://127.0.0.1:3000"),
        ("http://10.0.0.2:3000", "http://service-1:80/", "http://service-1:80"),
        ("http://0.0.0.0:3000", "", f"http://{socket.gethostname()}:3000"),
        ("http://[::]:3000", "", f"http://{socket.gethostname()}:3000"),
    ],
)
def test_address_for_the_deployer(service: str, advertised: str, url: str) -> None:
    assert advertised_url(Settings(service_url=service, advertise_url=advertised)) == url


@each_damage
def test_damaged_id_is_replaced_once(tmp_path: Path, damage: str) -> None:
    first = replica_id(tmp_path)
    damage_file(tmp_path / "replica.id", damage)
    second = replica_id(tmp_path)
    assert second == replica_id(tmp_path) != first
