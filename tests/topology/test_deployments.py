"""Nights on the topology: two workers, three replicas of the service, a balancer and a bucket."""

from __future__ import annotations

import pytest

from tests.topology.runner.cluster import REPLICAS, WORKERS, Cluster
from tests.topology.runner.hosts import eventually
from tests.topology.runner.nights import Night

pytestmark = pytest.mark.topology


def test_workers_and_replicas_start_healthy(running: Cluster) -> None:
    for name in (*WORKERS, *REPLICAS):
        running.hosts[name].wait_healthy()
        restarts = {part.name: part.restarts for part in running.hosts[name].containers.values()}
        assert set(restarts.values()) == {0}, restarts


def test_first_night_reaches_every_replica(first_night: Night) -> None:
    eventually("all replicas serve it", lambda: first_night.cluster.deployments() == {1}, 60)
    assert first_night.tries() == 0
