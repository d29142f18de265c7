"""Runs of `nightly_retrain` on the topology."""

from __future__ import annotations

from contextlib import suppress

from pipeline.errors import ServiceError
from pipeline.stack.airflow_api import UNFINISHED, AirflowApi
from tests.topology.runner.hosts import eventually

DAG = "nightly_retrain"
#: The sample of one recipe, trained for one epoch.
CONF = {"recipes": ["nsmc"], "epochs": 1}
#: Seconds for a run; generous, because the machine may be busy.
RUN_SECONDS = 1800.0
#: Seconds between questions to the API, each of which takes a part of a second of its CPU time.
PAUSE = 3.0


def begin(airflow: AirflowApi, **conf: object) -> str:
    """Trigger a run and return its id; `conf` are further values of the form."""
    eventually("the DAG is read", lambda: airflow.has_dag(DAG), 300, pause=PAUSE)
    return airflow.trigger(DAG, CONF | conf, "topology")


def tries(airflow: AirflowApi, run: str) -> int:
    """Return the number of tasks that were started more than once."""
    return sum(item.try_number > 1 for item in airflow.tasks(DAG, run))


def ended(airflow: AirflowApi, run: str) -> bool:
    with suppress(ServiceError):
        return airflow.run_state(DAG, run) not in UNFINISHED
    return False


def wait_for_run(airflow: AirflowApi, run: str) -> float:
    """Wait for the end of a run and return the seconds; AssertionError if it failed."""
    took = eventually(f"{run} ends", lambda: ended(airflow, run), RUN_SECONDS, pause=PAUSE)
    assert airflow.run_state(DAG, run) == "success", airflow.tasks(DAG, run)
    return took
