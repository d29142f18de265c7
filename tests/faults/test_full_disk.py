"""The disk fills up during a stage: a clear error, no partial artifact, and success once there is space."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.deployment.bento import ensure_bento
from pipeline.errors import StoreError
from pipeline.job import open_store
from pipeline.settings import load_settings
from pipeline.stages.stage import STAGES
from pipeline.store.deployments import DeploymentLog
from pipeline.store.leases import LEASES
from serving.api.counter_files import counter_directory
from serving.deployed.follower import LOAD_RETRY_POLLS as TRIED_AGAIN
from serving.deployed.follower import Follower, LogSource
from serving.engine.engine import EngineOptions
from tests.support.cli import Place, sets
from tests.support.crowd import TimedAnswer
from tests.support.deploying import hammering
from tests.support.disks import Disk, small_disk
from tests.support.running_service import Service, eventually, serving
from tests.support.served_answers import wrong_answers
from tests.support.small_pipeline import SMALL, anything_goes
from tests.support.tiny_releases import TinyModel

pytestmark = pytest.mark.faults

#: Bytes: too little for any stage, and enough for all.
FULL, PLENTY = 8 * 1024, 256 * 1024**2
LENIENT = SMALL | anything_goes("nsmc")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", FULL) as disk:
        yield disk


def shown(place: Place) -> list[str]:
    """Return the paths of all published artifacts in the store."""
    refs = [kind for kind in place.store.list("") if kind != LEASES]
    for _ in ("recipe", "key", "attempt"):
        refs = [f"{ref}/{name}" for ref in refs for name in place.store.list(ref)]
    return refs


def fails_then_goes_through(place: Place, disk: Disk, stage: str) -> None:
    disk.resize(disk.used + FULL)
    before = shown(place)
    failed = place.raw(stage, "nsmc", *sets(LENIENT), "--json")
    assert failed.returncode == 1, (stage, failed.stdout, failed.stderr)
    error = json.loads(failed.stdout)["error"]
    assert "the disk is full; free some space and run again" in error["message"], (stage, error, failed.stderr)
    assert error["retryable"]
    # The last line, without a traceback: W&B may have reported before that it cannot write its log.
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


@pytest.mark.parametrize("room", [0, FULL])
def test_service_on_a_full_disk_keeps_its_release(disk: Disk, tmp_path: Path, light: TinyModel, room: int) -> None:
    disk.resize(PLENTY)
    settings = load_settings().model_copy(update={"home": disk.path / "home", "store": str(tmp_path / "store")})
    store = open_store(settings)
    follower = Follower(LogSource(settings, store), EngineOptions(threads=1))
    try:
        for number, key in enumerate("ab"):
            release = light.publish(store, "nsmc", key=key * 16)
            DeploymentLog(store).append({"nsmc": release.ref}, after=number, run="test", reason="test")
            if number == 0:
                follower.step()
                disk.resize(disk.used + room)
        follower.step()
        # The service cannot copy the release, and is not ready, but keeps answering.
        assert follower.snapshot.live["nsmc"].card.id == f"nsmc-{'a' * 16}"
        why = follower.unready()
        assert why
        assert f"still at deployment 1: {release.ref}: " in why
        assert "the disk is full" in why
        (worker,) = follower.source.workers()
        assert worker.deployment == 1
        # Without any space, the state that other processes read stays as it was.
        found = [(problem.release, problem.retryable) for problem in worker.problems]
        assert found == ([(release.ref, True)] if room else [])
        disk.resize(PLENTY)
        for _ in range(TRIED_AGAIN + 1):
            follower.step()
        assert (follower.problem, follower.source.workers()[0].deployment) == (None, 2)
        assert not list((settings.home / "service").rglob(".*.json.*")), "nothing half-written stays"
    finally:
        follower.close()


def test_running_service_answers_on_a_full_disk(disk: Disk, light: TinyModel) -> None:
    disk.resize(PLENTY)
    with serving(disk.path / "home", {}, light) as service:
        counters = counter_directory(service.settings.home)
        with hammering(service.settings.service_url, threads=1, pause=0.05) as seen:
            eventually("the client is answered", lambda: len(seen) > 10)
            disk.resize(disk.used)
            eventually("the client is answered", answered(seen, 20))
            # Workers that start on the full disk answer, too.
            for killed in service.pids():
                os.kill(killed, signal.SIGKILL)
                eventually("a worker takes its place", lambda killed=killed: has_replaced(service, killed))
                eventually("the client is answered", answered(seen, 20))
            disk.resize(PLENTY)
            eventually("every worker reports its state", lambda: deployments(service) == [1, 1])
        assert {answer.status for answer in seen} <= {0, 200}
        # A killed worker loses the request that it has.
        assert sum(answer.status == 0 for answer in seen) <= 2
        assert wrong_answers(open_store(service.settings), seen) == []
        assert counters.exists()
    assert not counters.exists()


def answered(seen: list[TimedAnswer], times: int) -> Callable[[], bool]:
    """Return a condition that is true after `times` more answers in a row."""
    begin = len(seen)
    return lambda: len(seen) > begin + times and all(answer.status == 200 for answer in seen[-times:])


def has_replaced(service: Service, killed: int) -> bool:
    """Return whether two workers live, none of which is `killed`."""
    return len(service.pids()) == 2 and killed not in service.pids()


def deployments(service: Service) -> list[int]:
    """Return the deployments of all workers."""
    return [worker.deployment for worker in service.client.releases().workers]


def test_bento_on_a_full_disk_is_built_later(disk: Disk, tmp_path: Path, light: TinyModel) -> None:
    settings = load_settings().model_copy(update={"home": disk.path / "home", "store": str(tmp_path / "store")})
    store = open_store(settings)
    release = light.publish(store, "nsmc", key="a" * 16)
    made = DeploymentLog(store).append({"nsmc": release.ref}, after=0, run="test", reason="test")
    with pytest.raises(StoreError, match="the disk is full"):
        ensure_bento(settings, store, made)
    disk.resize(PLENTY)
    assert ensure_bento(settings, store, made) == "saebyeok:1"
