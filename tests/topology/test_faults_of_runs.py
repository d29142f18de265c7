"""Cancelled runs and several runs at once, with a client asking the replicas through the balancer."""

from __future__ import annotations

import pytest

from pipeline.stack.airflow_api import AirflowApi
from pipeline.store.deployments import DeploymentLog
from tests.topology.runner.cluster import Cluster
from tests.topology.runner.nights import EASY_GATE, RECIPE, backfill, begin, changed_recipe
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


def test_two_runs_at_once_deploy_one_model(cluster: Cluster, airflow: AirflowApi) -> None:
    store = cluster.store()
    before = DeploymentLog(store).numbers()
    with (
        changed_recipe(cluster, EASY_GATE),
        watched(cluster, store, "two runs at once", RECIPE, lambda: again.lost()) as fault,
    ):
        # Both decide before one of them deploys.
        both = {seed: begin(cluster, airflow, seed=seed, approval=True) for seed in (41, 42)}
        for night in both.values():
            night.reach("approve")
        for night in both.values():
            night.approve()
        states = {seed: night.end() for seed, night in both.items()}
        assert sorted(states.values()) == ["failed", "success"]
        assert len(DeploymentLog(store).numbers()) == len(before) + 1
        late = max(states, key=lambda seed: states[seed] == "failed")
        assert "another run deployed in the meantime. Run again to compare with the new one" in both[late].note()
        assert not [ref for ref in cluster.staged() if ref.startswith(f"release/{RECIPE}/")]
        fault.heal()
        again = begin(cluster, airflow, seed=late)
        again.finish()
        fault.recover()


def test_backfill_during_a_run(cluster: Cluster, airflow: AirflowApi) -> None:
    """A run and two backfilled ones share each stage, so the model is trained and deployed once."""
    store = cluster.store()
    before = DeploymentLog(store).numbers()
    with (
        changed_recipe(cluster, EASY_GATE),
        watched(cluster, store, "a backfill during a run", RECIPE, lambda: lost) as fault,
    ):
        night = begin(cluster, airflow, seed=43)
        night.reach("train")
        runs = [night, *backfill(cluster, airflow, days=2, seed=43)]
        assert len(runs) == 3
        assert night.state("deploy") is None
        fault.heal()
        for run in runs:
            run.finish()
        lost = sum(run.lost() for run in runs)
        fault.recover()
    made = [store.open(ref).manifest for ref in store.refs("train", RECIPE)]
    assert sum(item.run in {run.id for run in runs} for item in made) == 1
    assert len(DeploymentLog(store).numbers()) == len(before) + 1
    assert {run.id for run in runs} >= {night.deployed().run}
