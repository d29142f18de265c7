"""Runs that meet an obstacle, with a client asking the replicas through the balancer."""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.recipes.files import RECIPES
from pipeline.stack.airflow_api import AirflowApi
from pipeline.store.artifacts import Store
from pipeline.store.deployments import DeploymentLog
from tests.topology.runner.cluster import WORKERS, Cluster
from tests.topology.runner.hosts import eventually
from tests.topology.runner.networks import GATEWAY
from tests.topology.runner.nights import RECIPE, RUN_SECONDS, begin
from tests.topology.runner.watching import watched

pytestmark = pytest.mark.topology


def test_release_is_too_slow(cluster: Cluster, airflow: AirflowApi) -> None:
    own = [cluster.hosts[name].state / "volumes" / "no-recipes" for name in WORKERS]
    store = cluster.store()
    before = DeploymentLog(store).numbers()
    for directory in own:
        limit_latency(directory)
    # The champion's own model passes the gate, and is exported again because the recipe has changed.
    night = begin(cluster, airflow, **settings_of_champion(store))
    with watched(cluster, store, "a release is slower than the recipe allows", RECIPE, night.lost) as fault:
        eventually("export is refused", lambda: night.state("export") == "up_for_retry", RUN_SECONDS, night.report, 2)
        assert DeploymentLog(store).numbers() == before
        for directory in own:
            shutil.rmtree(directory / "behaviour")
            (directory / f"{RECIPE}.toml").unlink()
        fault.heal()
        night.finish()
        fault.recover()


def settings_of_champion(store: Store) -> dict[str, object]:
    """Return the values of the form with which the live model was trained."""
    champion = DeploymentLog(store).champion(RECIPE)
    assert champion
    train = champion.input("trained").manifest.fields["train"]
    return {"seed": train["seed"], "epochs": train["epochs"]}


def limit_latency(directory: Path) -> None:
    """Write a copy of the recipe whose latency limit no model meets."""
    recipe = (RECIPES / f"{RECIPE}.toml").read_text(encoding="utf-8")
    assert recipe.count("latency_ms = 100.0") == 1
    shutil.copytree(RECIPES / "behaviour", directory / "behaviour")
    (directory / f"{RECIPE}.toml").write_text(recipe.replace("latency_ms = 100.0", "latency_ms = 0.001"))


def test_weights_and_biases_never_answers(cluster: Cluster, airflow: AirflowApi) -> None:
    # The kernel accepts the connections, and nobody reads from them.
    with socket.create_server((GATEWAY, 0)) as server, ExitStack() as stack:
        url = f"http://{GATEWAY}:{server.getsockname()[1]}"
        for name in WORKERS:
            stack.enter_context(cluster.hosts[name].changed(WANDB_BASE_URL=url, WANDB_API_KEY="0" * 40))
        night = begin(cluster, airflow, seed=45)
        with watched(cluster, cluster.store(), "Weights & Biases never answers", RECIPE, night.lost) as fault:
            fault.heal()
            night.finish()
            fault.recover()
        server.settimeout(0)
        connection, _ = server.accept()
        connection.close()
