"""Cancelled runs, with a client asking the replicas through the balancer."""

from __future__ import annotations

import pytest

from pipeline.stack.airflow_api import AirflowApi
from pipeline.store.deployments import DeploymentLog
from tests.topology.runner.cluster import Cluster
from tests.topology.runner.nights import RECIPE, begin
from tests.topology.runner.watching import watched

pytestmark = pytest.mark.topology

#: The tasks that compute or write.
STAGES = ("validate", "tokenize", "train", "evaluate", "decide", "export", "deploy")


def test_run_is_cancelled_in_each_stage(cluster: Cluster, airflow: AirflowApi) -> None:
    store = cluster.store()
    with watched(cluster, store, "a run is cancelled in each stage", RECIPE, lambda: night.lost()) as fault:
        for task in STAGES:
            night = begin(cluster, airflow, seed=31)
            night.reach(task, pause=0.5)
            before = DeploymentLog(store).numbers()
            night.cancel()
            assert task == "deploy" or DeploymentLog(store).numbers() == before
        fault.heal()
        night = begin(cluster, airflow, seed=31)
        night.finish()
        fault.recover()
    champion = DeploymentLog(store).champion(RECIPE)
    assert champion
    assert champion.input("trained").manifest.fields["train"]["seed"] == 31
