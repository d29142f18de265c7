"""Several replicas of the real service on this machine, which share only a store and the deploy token."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import SecretStr

from pipeline.deployment.deployer import rollback
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.store.deployments import Deployment, DeploymentLog
from serving.deployed.follower import POLL_LOCAL
from tests.support.crowd import TimedAnswer
from tests.support.deploying import hammering, put
from tests.support.running_service import Service, service_settings
from tests.support.tiny_releases import TinyModel

TOKEN = "the deploy token of all replicas"
#: Deployments whose releases each replica keeps on its disk.
KEPT = 2


@contextmanager
def running_replicas(directory: Path, count: int) -> Iterator[tuple[Settings, list[Service]]]:
    """Yield the settings of a deployer, and `count` replicas with one worker each."""
    shared = {"store": str(directory / "store"), "deploy_token": SecretStr(TOKEN)}
    deployer = service_settings(directory / "deployer").model_copy(update=shared)
    environment = {
        "SAEBYEOK_STORE": str(shared["store"]),
        "SAEBYEOK_DEPLOY_TOKEN": TOKEN,
        "SAEBYEOK_WORKERS": "1",
        "SAEBYEOK_THREADS": "1",
        "SAEBYEOK_KEEP_DEPLOYMENTS": str(KEPT),
    }
    homes = [service_settings(directory / f"replica-{number}").model_copy(update=shared) for number in range(count)]
    with ExitStack() as stack:
        services = [Service(settings, env=environment) for settings in homes]
        for service in services:
            stack.callback(service.stop)
        for service in services:
            service.wait_live(1)
        yield deployer, services


def kill(service: Service) -> None:
    """Kill all processes of a replica."""
    os.killpg(service.process.pid, signal.SIGKILL)
    service.process.wait()


def swap(
    deployer: Settings, services: Sequence[Service], model: TinyModel, *, deployments: int, rollbacks: int
) -> list[TimedAnswer]:
    """Deploy new releases and roll back in a row while users ask each replica; return the answers to the users.

    After each, all replicas serve it within ten polls, and their disks hold the releases of the kept deployments.
    """
    store = open_store(deployer)
    answers: list[TimedAnswer] = []
    with ExitStack() as users:
        seen = [
            users.enter_context(hammering(service.settings.service_url, threads=1, pause=0.2)) for service in services
        ]
        for number in range(deployments):
            release = model.publish(store, "nsmc", key=f"{number:016x}")
            check(services, put(deployer, release))
        for number in range(rollbacks):
            check(services, rollback(deployer, store, f"rollback-{number}"))
    for found in seen:
        answers += found
    assert DeploymentLog(store).numbers()[-1] >= deployments + rollbacks
    return answers


def check(services: Sequence[Service], record: Deployment) -> None:
    """Check that all replicas serve `record` within ten polls, and keep only what they need on their disks."""
    deadline = time.monotonic() + 10 * POLL_LOCAL
    while behind := [service for service in services if service.client.releases().deployment != record.number]:
        assert time.monotonic() < deadline, [service.settings.service_url for service in behind]
    for service in services:
        models = [path for path in (service.settings.home / "bentoml" / "models").glob("*/*") if path.is_dir()]
        # One more may be staged at the moment.
        assert len(models) <= KEPT + 1
