"""Faults on the hosts of Airflow during a run, with a client asking the replicas through the balancer."""

from __future__ import annotations

import time

import psutil
import pytest

from pipeline.stack.airflow_api import AirflowApi
from pipeline.store.artifacts import Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.leases import LEASES, Holder
from pipeline.store.manifest import CHECKPOINT
from tests.topology.runner.cluster import WORKERS, Cluster
from tests.topology.runner.hosts import Host, eventually
from tests.topology.runner.nights import RECIPE, RUN_SECONDS, Night, begin, noticed_within
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


def test_worker_host_is_killed_in_training(running: Cluster, airflow: AirflowApi) -> None:
    store, scheduler = running.store(), running.hosts["control"].containers["airflow-scheduler"]
    with noticed_within(MINUTE, scheduler):
        night = begin(running, airflow, seed=25, epochs=3)
        eventually("a checkpoint is in the store", lambda: store.newest(CHECKPOINT, RECIPE), RUN_SECONDS)
        host = training_host(running)
        with night.fault("a worker host is killed in training (heartbeat timeout: 60 s)", "train") as fault:
            for container in host.containers.values():
                container.kill()
            fault.heal()
    assert any(has_resumed(running.hosts[name], night) for name in WORKERS if name != host.name)
    host.up()
    host.wait_healthy()
    # Other tests wait for the end of a run.
    night.cancel()


def training_host(cluster: Cluster) -> Host:
    """Return the host that holds the lease of a training."""
    store = cluster.store()
    content = store.read(leases(store)[-1])
    assert content is not None
    return cluster.hosts[Holder.model_validate_json(content).host.removesuffix(".internal")]


def leases(store: Store) -> list[str]:
    """Return the leases of trainings."""
    return [ref for ref in store.files_below(f"{LEASES}/train/{RECIPE}") if ref.endswith(".json")]


def has_resumed(host: Host, night: Night) -> bool:
    """Return whether a training of the run began on this host with a checkpoint from the store."""
    logs = (host.state / "volumes" / "logs").glob(f"*/run_id={night.id}/*.train/*.log")
    return any(" comes from s3://" in path.read_text(encoding="utf-8", errors="replace") for path in logs)


def test_supervisor_is_killed_and_its_task_lives_on(running: Cluster, airflow: AirflowApi) -> None:
    night = begin(running, airflow, seed=24)
    with night.fault("the supervisor of a training is killed", "train") as fault:
        eventually("the model is trained", lambda: leases(running.store()), RUN_SECONDS)
        task = training_process(running)
        assert task
        task.parent().kill()
        fault.heal()
        assert task.is_running()
    assert len(trainings(night)) == 1, "the model was trained twice"
    # Other tests wait for the end of a run.
    night.cancel()


def training_process(cluster: Cluster) -> psutil.Process | None:
    """Return the process of the task that a worker for queue `gpu` runs."""
    for name in WORKERS:
        first = psutil.Process(int(cluster.hosts[name].containers["worker-gpu"].first_process()))
        for process in first.children(recursive=True):
            if " ".join(process.cmdline()).startswith("airflow worker -- "):
                return process
    return None


def trainings(night: Night) -> list[str]:
    """Return the models with the settings of this run's training."""
    store = night.cluster.store()
    made = [store.open(ref) for ref in store.refs("train", RECIPE)]
    keys = {item.key for item in made if item.manifest.run == night.id}
    return [item.ref for item in made if item.key in keys]
