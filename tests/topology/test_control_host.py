"""The control host of docker/compose.yaml and compose.control.yaml."""

from __future__ import annotations

import pytest

from pipeline.stack.lifecycle import DAGS
from tests.topology.runner.cluster import Cluster
from tests.topology.runner.hosts import Host, eventually

pytestmark = pytest.mark.topology


def test_control_host_starts_healthy(control: Host) -> None:
    control.wait_healthy()
    assert {name: part.restarts for name, part in control.containers.items() if part.restarts} == {}


def test_processes_run_as_the_user_of_the_image(control: Host) -> None:
    for name in ("airflow-api", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "clean-logs"):
        assert control.containers[name].execute("id").stdout.startswith("uid=50000(saebyeok) gid=0(root)"), name


def test_first_user_signs_in_and_no_dag_is_paused(control: Host, topology: Cluster) -> None:
    with topology.airflow() as airflow:
        eventually("the DAGs are read", lambda: all(map(airflow.has_dag, DAGS)), 300, control.report)
        assert airflow.import_errors() == []
        assert [dag for dag in DAGS if airflow.is_paused(dag)] == []


def test_interface_listens_on_loopback_and_the_private_address(control: Host) -> None:
    for address in ("127.0.0.1", control.address):
        assert '"healthy"' in control.run("curl", "-sS", f"http://{address}:8080/api/v2/monitor/health").stdout
