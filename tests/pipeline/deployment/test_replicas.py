"""Deployments to several replicas of the service, each with a home of its own, in this process."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from pipeline.deployment.deployer import rollback
from pipeline.deployment.replicas import open_replicas
from pipeline.errors import ArtifactError, GoldenMismatchError, ServiceError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.replicas import LEASE, ReplicaRegistry
from tests.support.deploying import put
from tests.support.inprocess import InProcess, in_process
from tests.support.tiny_releases import TinyModel

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("no_bentos", "retries_at_once")]

A, B = (letter * 16 for letter in "ab")
ASK, LOOK = "POST /classify", "GET /releases"


@pytest.fixture
def replicas(settings: Settings, tmp_path: Path) -> Iterator[list[InProcess]]:
    """Two replicas that share only the store and the deploy token."""
    shared = {"store": settings.store_uri, "deploy_token": SecretStr("the deploy token of all")}
    homes = [settings.model_copy(update={**shared, "home": tmp_path / name}) for name in ("one", "two")]
    with ExitStack() as running:
        yield [running.enter_context(in_process(home)) for home in homes]


@pytest.fixture
def deployer(replicas: list[InProcess], settings: Settings) -> Settings:
    """The settings of a deployer on another host, whose service URL leads nowhere."""
    update = {"home": settings.home, "service_url": "http://127.0.0.1:9", "deploy_seconds": 20.0}
    return replicas[0].settings.model_copy(update=update)


@pytest.fixture
def champion(store: Store, light: TinyModel) -> Artifact:
    """The live release of deployment 1."""
    release = light.publish(store, "nsmc", key=A)
    DeploymentLog(store).append({"nsmc": release.ref}, after=0, run="test", reason="test")
    return release


@pytest.fixture
def challenger(store: Store, other_light: TinyModel) -> Artifact:
    return other_light.publish(store, "nsmc", key=B)


def expire(store: Store, *replicas: str) -> None:
    """Let the leases of replicas end."""
    for replica in replicas:
        path = Path(store.uri) / f"replicas/{replica}.json"
        old = path.stat().st_mtime - LEASE - 10
        os.utime(path, (old, old))


def test_every_replica_is_staged_and_asked(
    replicas: list[InProcess], deployer: Settings, champion: Artifact, challenger: Artifact, store: Store
) -> None:
    assert put(deployer, challenger).number == 2
    for replica in replicas:
        assert replica.asked.count(ASK) == 8, "its golden sentences, staged and live"
        replica.look()
        assert [worker.deployment for worker in replica.followers[0].source.workers()] == [2, 2]
        assert replica.followers[0].snapshot.staged == {}
    assert sorted(record.deployment for record in ReplicaRegistry(store).list()) == [2, 2]
    assert rollback(deployer, store, "back").number == 3


def end_wait_once_following(replica: InProcess, number: int, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the deployer's clock jump by `limit` seconds as soon as `replica` serves deployment `number`."""
    passed = 0.0

    def sleep(seconds: float) -> None:
        nonlocal passed
        time.sleep(seconds)
        if {worker.deployment for worker in replica.followers[0].source.workers()} == {number}:
            passed = limit

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed, sleep=sleep)
    monkeypatch.setattr("pipeline.deployment.replicas.time", clock)


def test_checked_replica_is_not_asked_again_while_another_is_late(
    replicas: list[InProcess], deployer: Settings, champion: Artifact, challenger: Artifact
) -> None:
    checked, late = replicas

    def hold(_: object) -> None:
        # It is late at the first look of each wait; the deployer looks once before the first.
        late.held = {1, 2} if late.asked.count(LOOK) in (2, 4) else set()

    late.script = hold  # type: ignore[assignment]
    assert put(deployer, challenger).number == 2
    assert (checked.asked.count(LOOK), late.asked.count(LOOK)) == (5, 5)
    assert (checked.asked.count(ASK), late.asked.count(ASK)) == (8, 8), "its golden sentences, staged and live"


@pytest.mark.parametrize("quorum", [1.0, 0.5])
def test_replica_that_cannot_load_is_named_and_stops_without_quorum(
    replicas: list[InProcess],
    deployer: Settings,
    champion: Artifact,
    challenger: Artifact,
    store: Store,
    quorum: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deployer = deployer.model_copy(update={"deploy_quorum": quorum})
    bad = replicas[1]
    for follower in bad.followers:
        monkeypatch.setattr(follower.source, "directory", lambda _: Path("/nowhere"))
    if quorum == 1.0:
        with pytest.raises(
            (ArtifactError, ServiceError), match=f"worker 1 cannot load .* at {bad.settings.service_url}"
        ):
            put(deployer, challenger)
        assert DeploymentLog(store).numbers() == [1]
        return
    end_wait_once_following(replicas[0], 2, deployer.deploy_seconds, monkeypatch)
    assert put(deployer, challenger).number == 2
    assert f"{bad.settings.service_url} (" in caplog.text
    assert "the other replicas are the quorum" in caplog.text


def test_replica_with_wrong_answers_stops_the_deployment(
    replicas: list[InProcess], deployer: Settings, champion: Artifact, store: Store, other_light: TinyModel
) -> None:
    with pytest.raises(GoldenMismatchError, match="its card says"):
        put(deployer, other_light.publish(store, "nsmc", key=B, lies=True))
    assert DeploymentLog(store).numbers() == [1]


def test_dead_replica_is_not_waited_for(
    replicas: list[InProcess],
    deployer: Settings,
    champion: Artifact,
    challenger: Artifact,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = ReplicaRegistry(store)
    alive, *_ = registry.list()
    dead = alive.model_copy(update={"id": "f" * 16, "url": "http://127.0.0.1:9", "host": "gone"})
    registry.renew(dead)
    expire(store, dead.id)
    assert put(deployer, challenger).number == 2
    assert "replica http://127.0.0.1:9 (gone) has not renewed its record: it counts as dead" in caplog.text
    assert dead.id not in {record.id for record in registry.list()}


def test_dead_replica_gets_no_token(
    replicas: list[InProcess], deployer: Settings, champion: Artifact, challenger: Artifact, store: Store
) -> None:
    registry = ReplicaRegistry(store)
    alive, *_ = registry.list()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.setblocking(False)
        url = f"http://127.0.0.1:{stranger.getsockname()[1]}"
        dead = alive.model_copy(update={"id": "f" * 16, "url": url})
        registry.renew(dead)
        expire(store, dead.id)
        assert put(deployer, challenger).number == 2
        with pytest.raises(BlockingIOError):
            stranger.accept()


def test_loopback_address_of_another_host_is_left_out(
    replicas: list[InProcess],
    deployer: Settings,
    champion: Artifact,
    challenger: Artifact,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = ReplicaRegistry(store)
    alive, *_ = registry.list()
    registry.renew(alive.model_copy(update={"id": "e" * 16, "url": "http://127.0.0.1:9", "host": "laptop"}))
    assert put(deployer, challenger).number == 2
    assert caplog.text.count("replica http://127.0.0.1:9 (laptop) is left out") == 1


def test_silent_replica_with_a_lease_stops_the_deployment(
    replicas: list[InProcess], deployer: Settings, champion: Artifact, challenger: Artifact, store: Store
) -> None:
    registry = ReplicaRegistry(store)
    silent = registry.list()[0].model_copy(update={"id": "f" * 16, "url": "http://127.0.0.1:9"})
    registry.renew(silent)
    with pytest.raises(ServiceError, match=rf"{re.escape(str(silent))} .*did not load release/nsmc"):
        put(deployer.model_copy(update={"deploy_seconds": 0.5}), challenger)
    assert DeploymentLog(store).numbers() == [1]


@pytest.mark.parametrize(("deploy_seconds", "limit"), [(0.5, 5.0), (45.0, 15.0), (900.0, 60.0)])
def test_hanging_replica_leaves_time_for_three_looks(
    replicas: list[InProcess], deployer: Settings, store: Store, deploy_seconds: float, limit: float
) -> None:
    with open_replicas(deployer.model_copy(update={"deploy_seconds": deploy_seconds}), store) as found:
        assert found
        assert {member.client._http.timeout.read for member in found.members()} == {limit}


def test_address_of_another_replica_is_refused(
    replicas: list[InProcess], deployer: Settings, champion: Artifact, challenger: Artifact, store: Store
) -> None:
    registry = ReplicaRegistry(store)
    registry.renew(registry.list()[0].model_copy(update={"id": "f" * 16}))
    with pytest.raises(ServiceError, match="set SAEBYEOK_ADVERTISE_URL of each replica to an address of its own"):
        put(deployer.model_copy(update={"deploy_seconds": 0.5}), challenger)


def test_replica_that_joins_while_staging_is_staged(
    replicas: list[InProcess], deployer: Settings, champion: Artifact, challenger: Artifact, tmp_path: Path
) -> None:
    with ExitStack() as joining:
        late = replicas[0].settings.model_copy(update={"home": tmp_path / "three", "store": deployer.store})
        joined: list[InProcess] = []
        replicas[0].on(ASK, lambda: joined.append(joining.enter_context(in_process(late))))
        assert put(deployer, challenger).number == 2
        assert joined[0].asked.count("POST /releases/stage") <= 1
        joined[0].look()
        assert joined[0].followers[0].snapshot.number == 2
