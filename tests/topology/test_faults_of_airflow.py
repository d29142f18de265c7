"""Faults on the hosts of Airflow during a run, with a client asking the replicas through the balancer."""

from __future__ import annotations

import time

import pytest

from pipeline.stack.airflow_api import AirflowApi
from pipeline.store.deployments import DeploymentLog
from tests.topology.runner.cluster import Cluster
from tests.topology.runner.hosts import eventually
from tests.topology.runner.nights import Night, begin
from tests.topology.runner.watching import RECIPE as ASKED
from tests.topology.runner.watching import Bench

pytestmark = pytest.mark.topology

MINUTE = 60.0


@pytest.fixture(autouse=True)
def asked(bench: Bench, no_bentos: None) -> None:
    """Deploy the release that the client asks."""
    if DeploymentLog(bench.store).champion(ASKED) is None:
        bench.put()


@pytest.fixture(scope="module")
def night(running: Cluster, airflow: AirflowApi) -> Night:
    """A run in which one fault follows another."""
    return begin(running, airflow, seed=11)


def test_redis_is_gone_for_a_minute(night: Night) -> None:
    redis = night.cluster.hosts["control"].containers["redis"]
    with night.fault("Redis is gone for a minute during a run", "validate") as fault:
        redis.stop()
        try:
            time.sleep(MINUTE)
        finally:
            redis.start()
        fault.heal()


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("airflow-scheduler", "tokenize"),
        ("airflow-api", "train"),
        ("airflow-dag-processor", "evaluate"),
        ("postgres", "export"),
    ],
)
def test_control_container_is_killed(night: Night, name: str, task: str) -> None:
    with night.fault(f"`{name}` is killed during a run", task) as fault:
        night.cluster.hosts["control"].containers[name].crash()
        fault.heal()


def test_run_with_these_faults_deploys_its_model(night: Night) -> None:
    night.finish()
    champion = night.deployed()
    eventually("every replica serves it", lambda: night.cluster.deployments() == {champion.number}, MINUTE)
    assert champion.run == night.id
