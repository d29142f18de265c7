"""Runs that meet an obstacle, with a client asking the replicas through the balancer."""

from __future__ import annotations

import shutil
import socket
import time
from contextlib import ExitStack

import pytest

from pipeline.stack.airflow_api import AirflowApi
from pipeline.store.artifacts import Store
from pipeline.store.deployments import DeploymentLog
from tests.topology.runner.clocks import with_late_clock
from tests.topology.runner.cluster import REPLICAS, WORKERS, Cluster
from tests.topology.runner.hosts import Host, eventually
from tests.topology.runner.images import Image
from tests.topology.runner.networks import GATEWAY
from tests.topology.runner.nights import EASY_GATE, PAUSE, RECIPE, RUN_SECONDS, begin, changed_recipe
from tests.topology.runner.watching import watched

pytestmark = pytest.mark.topology

HOUR = 3600


def test_release_is_too_slow(cluster: Cluster, airflow: AirflowApi) -> None:
    store = cluster.store()
    before = DeploymentLog(store).numbers()
    with watched(cluster, store, "a release is slower than the recipe allows", RECIPE, lambda: night.lost()) as fault:
        with changed_recipe(cluster, {"latency_ms = 100.0": "latency_ms = 0.001"}):
            # The champion's own model passes the gate, and is exported again because the recipe has changed.
            night = begin(cluster, airflow, **settings_of_champion(store))
            eventually(
                "export is refused", lambda: night.state("export") == "up_for_retry", RUN_SECONDS, night.report, PAUSE
            )
            assert DeploymentLog(store).numbers() == before
        fault.heal()
        night.finish()
        fault.recover()


def settings_of_champion(store: Store) -> dict[str, object]:
    """Return the values of the form with which the live model was trained."""
    champion = DeploymentLog(store).champion(RECIPE)
    assert champion
    train = champion.input("trained").manifest.fields["train"]
    return {"seed": train["seed"], "epochs": train["epochs"]}


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


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_clock_of_a_worker_host_is_late(cluster: Cluster, airflow: AirflowApi) -> None:
    # All tasks of queue `default` run on this host.
    host, store = cluster.hosts["worker-1"], cluster.store()
    late = {name: with_late_clock(image) for name, image in host.images.items()}
    with changed_recipe(cluster, EASY_GATE), host.changed(late):
        assert seconds_late(host) == pytest.approx(HOUR, abs=60)
        night = begin(cluster, airflow, seed=46)
        with watched(cluster, store, "the clock of a worker host is an hour late", RECIPE, night.lost) as fault:
            fault.heal()
            night.finish()
            fault.recover()
    assert night.deployed().run == night.id


def seconds_late(host: Host) -> float:
    """Return by how much the clock of the host's processes is late."""
    said = host.containers["worker-gpu"].execute("python", "-c", "import time; print(time.time())")
    return time.time() - float(said.stdout)


def test_project_is_rolled_back_and_upgraded_between_runs(
    cluster: Cluster, older: dict[str, dict[str, Image]], airflow: AirflowApi
) -> None:
    newer = {name: host.images for name, host in cluster.hosts.items()}
    store, champions = cluster.store(), []
    fault_name = "the project is rolled back and upgraded between two runs"
    with changed_recipe(cluster, EASY_GATE), watched(cluster, store, fault_name, RECIPE, lambda: night.lost()) as fault:
        for seed, images in ((47, older), (48, newer)):
            # The services first, one after the other, as docs/how-to/back-up-and-upgrade.md says.
            for name in (*REPLICAS, "control", *WORKERS):
                cluster.hosts[name].install(images[name])
            fault.heal()
            night = begin(cluster, airflow, seed=seed)
            night.finish()
            fault.recover()
            champions.append(night.deployed())
            assert champions[-1].run == night.id
    # The newer version has used what the older one made.
    first, second = (store.open(champion.releases[RECIPE]).input("trained") for champion in champions)
    assert first.input_ref("tokenized") == second.input_ref("tokenized")
