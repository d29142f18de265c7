"""Faults of the replicas and the store during deployments, with a client asking through the balancer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.deployment.deployer import rollback
from pipeline.errors import ArtifactError, ConflictError, GoldenMismatchError, ServiceError
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.manifest import MANIFEST
from tests.support.bucket import cut
from tests.support.deploying import before_next_record, put
from tests.support.disks import Disk, small_disk
from tests.topology.runner.hosts import Host, eventually
from tests.topology.runner.networks import S3, own_address
from tests.topology.runner.watching import RECIPE, Bench

pytestmark = pytest.mark.topology

MINUTE = 60.0
#: Bytes of the disk of a replica that becomes full.
DISK = 256 << 20


@pytest.fixture(autouse=True)
def deployed(bench: Bench, no_bentos: None) -> Deployment:
    """Return the newest deployment, so that the client is answered before the fault."""
    return DeploymentLog(bench.store).latest() or bench.put()


def test_replica_cut_off_during_a_swap(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    host = bench.cluster.hosts["service-3"]
    before_next_record(monkeypatch, lambda: host.plug(on=False))
    with bench.watched("a replica is cut off during a swap") as fault:
        try:
            bench.put()
            assert 0 in bench.cluster.deployments(), "the deployment did not wait for it"
        finally:
            host.plug(on=True)
        fault.heal()
        fault.recover()


def test_replica_is_killed(bench: Bench) -> None:
    with bench.watched("a replica is killed") as fault:
        bench.cluster.hosts["service-2"].containers["service"].crash()
        fault.heal()
        bench.put()
        fault.recover()


def test_disk_of_a_replica_is_full(bench: Bench, deployed: Deployment) -> None:
    host = bench.cluster.hosts["service-3"]
    with on_small_disk(host) as disk, bench.watched("the disk of a replica is full") as fault:
        release = bench.publish()
        disk.resize(disk.used)
        with pytest.raises(ServiceError, match=rf"{host.address}.*No space left on device"):
            put(bench.settings, release)
        assert bench.cluster.deployments() == {deployed.number}
        disk.resize(DISK)
        fault.heal()
        bench.put(release)
        fault.recover()


@contextmanager
def on_small_disk(host: Host) -> Iterator[Disk]:
    """Give the replica an empty disk of its own for its home during the block."""
    container, home = host.containers["service"], host.state / "volumes" / "service-home"
    aside = home.with_name("aside")
    container.stop()
    home.rename(aside)
    try:
        with small_disk(home, DISK) as disk:
            host.up()
            host.wait_healthy()
            try:
                yield disk
            finally:
                container.stop()
    finally:
        home.rmdir()
        aside.rename(home)
        host.up()
        host.wait_healthy()


def test_two_deployments_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = bench.publish(), bench.publish()
    # Both were compared with the same champion, so only one of them may replace it.
    before_next_record(monkeypatch, lambda: bench.put(second))
    with bench.watched("two deployments at once") as fault:
        with pytest.raises(ConflictError, match=f"became {second.ref} in the meantime; run again"):
            bench.put(first)
        # A release of an earlier test may be staged until its deadline, at a replica that was cut off.
        eventually("neither is staged", lambda: bench.cluster.staged().isdisjoint({first.ref, second.ref}), MINUTE)
        fault.heal()
        bench.put(first)
        fault.recover()


def test_store_is_unreachable_for_a_minute(bench: Bench) -> None:
    with bench.watched("the store is unreachable for a minute") as fault:
        own_address(S3, on=False)
        try:
            time.sleep(MINUTE)
        finally:
            own_address(S3, on=True)
        fault.heal()
        bench.put()
        fault.recover()


def test_store_answers_half_an_object(bench: Bench) -> None:
    with bench.watched("the store answers half an object") as fault:
        # One request of each replica, and those with which its client repeats it.
        half = bench.cluster.bucket.fail(cut, "GET", "model.int8.onnx", times=6)
        bench.put()
        assert half.seen > 3
        fault.heal()
        fault.recover()


def test_newest_record_is_truncated(bench: Bench, deployed: Deployment) -> None:
    ref = f"deployments/{deployed.number:06d}.json"
    content = bench.store.read(ref)
    assert content is not None
    release = bench.store.open(deployed.releases[RECIPE])
    with bench.watched("the newest deployment record is truncated") as fault:
        bench.cluster.bucket.put(ref, content[: len(content) // 2])
        with pytest.raises(ArtifactError, match=rf"{ref} is damaged"):
            bench.put(bench.publish())
        # The way out in docs/how-to/troubleshoot.md.
        bench.cluster.bucket.delete(ref)
        fault.heal()
        assert bench.put(release).number == deployed.number
        fault.recover()


def test_file_of_a_release_has_a_flipped_bit(bench: Bench) -> None:
    release = bench.publish()
    name = f"{release.ref}/model.int8.onnx"
    content = bench.store.read(name)
    assert content is not None
    with bench.watched("a file of a release has a flipped bit") as fault:
        bench.cluster.bucket.put(name, content[:100] + bytes([content[100] ^ 1]) + content[101:])
        with pytest.raises(ArtifactError, match=r"model\.int8\.onnx"):
            bench.put(release)
        fault.heal()
        bench.put()
        fault.recover()


@pytest.mark.parametrize(("flaw", "error"), [("lies", GoldenMismatchError), ("breaks", ArtifactError)])
def test_broken_release_is_never_served(bench: Bench, flaw: str, error: type[Exception]) -> None:
    names = {"lies": "a release answers wrongly", "breaks": "a release cannot be loaded"}
    with bench.watched(names[flaw]) as fault:
        with pytest.raises(error):
            bench.put(bench.publish(**{flaw: True}))
        fault.heal()
        bench.put()
        fault.recover()


def test_rollback_target_is_missing(bench: Bench, deployed: Deployment) -> None:
    target = bench.put()
    bench.put()
    ref = target.releases[RECIPE]
    with bench.watched("the target of a rollback is missing") as fault:
        bench.cluster.bucket.delete(f"{ref}/{MANIFEST}")
        with pytest.raises(ArtifactError, match=ref):
            rollback(bench.settings, bench.store, "one back")
        fault.heal()
        # The one before that is complete.
        record = rollback(bench.settings, bench.store, "two back", deployed.number)
        assert record.releases == deployed.releases
        fault.recover()
