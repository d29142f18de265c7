"""The topology, built once for all its tests; they skip where namespaces cannot be made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.topology.runner.networks import missing

if TYPE_CHECKING:
    from tests.topology.runner.cluster import Cluster
    from tests.topology.runner.hosts import Host


@pytest.fixture(scope="session")
def topology() -> Iterator[Cluster]:
    """All hosts, none started."""
    if problem := missing():
        pytest.skip(problem)
    # Imported here, because pytest reads this file in every run: the cluster imports moto.
    from tests.topology.runner.cluster import cluster

    with cluster() as connected:
        yield connected


@pytest.fixture(scope="session")
def control(topology: Cluster) -> Host:
    """The control host, started."""
    topology.hosts["control"].up()
    return topology.hosts["control"]


@pytest.fixture(scope="session")
def running(control: Host, topology: Cluster) -> Cluster:
    """All hosts, started."""
    for host in topology.hosts.values():
        if host is not control:
            host.up()
    return topology


@pytest.fixture(scope="session")
def first_night(running: Cluster) -> str:
    """The run of the first deployment."""
    from tests.topology.runner.nights import begin, wait_for_run

    with running.airflow() as airflow:
        run = begin(airflow)
        wait_for_run(airflow, run)
    return run
