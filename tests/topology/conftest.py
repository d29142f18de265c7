"""The topology, built once for all its tests; they skip where namespaces cannot be made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from pipeline.settings import load_settings
from pipeline.store.deployments import DeploymentLog
from tests.support.needs import fixtures_of
from tests.topology.runner.networks import missing

if TYPE_CHECKING:
    from pipeline.stack.airflow_api import AirflowApi
    from tests.support.tiny_releases import TinyModel
    from tests.topology.runner.cluster import Cluster
    from tests.topology.runner.hosts import Host
    from tests.topology.runner.images import Image
    from tests.topology.runner.nights import Night
    from tests.topology.runner.watching import Bench

#: Seconds of a deployment; longer than the lease of a replica that no longer answers.
DEPLOY_SECONDS = 45.0


@pytest.fixture(scope="session")
def topology(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The hosts that the chosen tests need, none started."""
    if problem := missing():
        pytest.skip(problem)
    # Imported here, because pytest reads this file in every run: the cluster imports moto.
    from tests.topology.runner.cluster import HOSTS, REPLICAS, cluster
    from tests.topology.runner.older import older_checkout

    # The images of Airflow take most of the time to build.
    used = {name for item in request.session.items for name in fixtures_of(item)}
    with cluster(HOSTS if "control" in used else REPLICAS, older_checkout() if "older" in used else None) as connected:
        yield connected


@pytest.fixture(scope="session")
def control(topology: Cluster) -> Host:
    """The control host, started."""
    topology.hosts["control"].up()
    return topology.hosts["control"]


@pytest.fixture(scope="session")
def replicas(topology: Cluster) -> Cluster:
    """The hosts of the service, started and healthy."""
    from tests.topology.runner.cluster import REPLICAS

    for name in REPLICAS:
        topology.hosts[name].up()
    for name in REPLICAS:
        topology.hosts[name].wait_healthy()
    return topology


@pytest.fixture(scope="session")
def bench(
    replicas: Cluster, light: TinyModel, other_light: TinyModel, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    """A deployer that reaches the replicas."""
    from tests.topology.runner.watching import Bench

    settings = load_settings().model_copy(
        update={
            "home": tmp_path_factory.mktemp("deployer"),
            "store": replicas.bucket.uri,
            "deploy_token": SecretStr(replicas.secrets["SAEBYEOK_DEPLOY_TOKEN"]),
            "deploy_seconds": DEPLOY_SECONDS,
        }
    )
    return Bench(replicas, settings, (light, other_light))


@pytest.fixture(scope="session")
def running(control: Host, replicas: Cluster) -> Cluster:
    """All hosts, started."""
    from tests.topology.runner.cluster import WORKERS

    for name in WORKERS:
        replicas.hosts[name].up()
    return replicas


@pytest.fixture(scope="session")
def airflow(control: Host, topology: Cluster) -> Iterator[AirflowApi]:
    """A client of the control host's API."""
    with topology.airflow() as client:
        yield client


@pytest.fixture(scope="session")
def first_night(running: Cluster, airflow: AirflowApi) -> Night:
    """The run of the first deployment, completed."""
    from tests.topology.runner.nights import begin

    night = begin(running, airflow)
    night.finish()
    return night


@pytest.fixture
def older(topology: Cluster) -> dict[str, dict[str, Image]]:
    """The images of an older version of the project, by host and service."""
    if not topology.older:
        pytest.skip("this clone does not have the older commit")
    return topology.older


@pytest.fixture
def cluster(running: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """All hosts, with a model that a run has deployed."""
    from tests.topology.runner.nights import RECIPE

    if DeploymentLog(running.store()).champion(RECIPE) is None:
        request.getfixturevalue("first_night")
    return running
