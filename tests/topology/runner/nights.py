"""Runs of `nightly_retrain` on the topology, and faults during a run while a client asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from pipeline.errors import ServiceError, StackError
from pipeline.recipes.files import RECIPES
from pipeline.stack.airflow_api import UNFINISHED, AirflowApi, TaskInstance
from pipeline.store.deployments import Deployment, DeploymentLog
from tests.topology.runner.cluster import WORKERS, Cluster
from tests.topology.runner.containers import Container
from tests.topology.runner.hosts import eventually
from tests.topology.runner.watching import RECIPE as ASKED
from tests.topology.runner.watching import Watch, watched

DAG, RECIPE = "nightly_retrain", "nsmc"
#: The sample of one recipe, trained for one epoch.
CONF = {"recipes": [RECIPE], "epochs": 1}
#: Lines of the recipe that let each trained model pass the gate.
EASY_GATE = {
    "floors = { accuracy = 0.87, f1 = 0.87 }\nmargin = 0.05": "floors = { accuracy = 0.5, f1 = 0.5 }\nmargin = 0.4",
    "negation = 0.38\nintensifiers = 0.65\ntypos = 0.75\nnames = 0.8\nemoji = 0.85": (
        "negation = 0.1\nintensifiers = 0.1\ntypos = 0.1\nnames = 0.1\nemoji = 0.1"
    ),
}
#: The tasks of a recipe, in their order.
TASKS = ("validate", "tokenize", "train", "evaluate", "decide", "gate", "approve", "export", "deploy")
#: Seconds for a run; generous, because the machine may be busy.
RUN_SECONDS = 1800.0
#: Seconds between questions to the API, each of which takes a part of a second of its CPU time.
PAUSE = 2.0
#: States of a task that has not started, that is complete, and that will not be.
WAITING = (None, "scheduled", "queued")
COMPLETE = ("success", "skipped")
LOST = ("failed", "upstream_failed")


@dataclass
class Night:
    """A run, seen through Airflow's API, which may be away for a while."""

    cluster: Cluster
    airflow: AirflowApi
    id: str

    def tasks(self) -> dict[str, TaskInstance]:
        """Return the tasks of the recipe by name; empty if the API does not answer."""
        with suppress(ServiceError, StackError):
            prefix = f"{RECIPE}."
            found = self.airflow.tasks(DAG, self.id)
            return {item.task_id.removeprefix(prefix): item for item in found if item.task_id.startswith(prefix)}
        return {}

    def state(self, task: str) -> str | None:
        """Return the state of a task; None before it is scheduled, or if the API does not answer."""
        found = self.tasks().get(task)
        return found.state if found else None

    def reach(self, task: str, pause: float = PAUSE) -> None:
        """Wait until a task has started."""
        eventually(f"{task} starts", lambda: self.state(task) not in WAITING, RUN_SECONDS, self.report, pause)

    def newest(self) -> str:
        """Return the task that has started last, as soon as the API answers."""
        eventually("the API answers", self.tasks, RUN_SECONDS, pause=PAUSE)
        return max((name for name, item in self.tasks().items() if item.state not in WAITING), key=TASKS.index)

    def pass_over(self, task: str) -> None:
        """Wait until a task is complete, and the next one has started; AssertionError if one has failed."""
        if task == TASKS[-1]:
            self.finish()
            return
        after = TASKS[TASKS.index(task) + 1]
        eventually(f"{after} follows", lambda: self._has_passed(task, after), RUN_SECONDS, self.report, PAUSE)

    def _has_passed(self, task: str, after: str) -> bool:
        tasks = self.tasks()
        assert not self.lost(), self.report()
        return bool(tasks) and tasks[task].state in COMPLETE and tasks[after].state not in WAITING

    def has_ended(self) -> bool:
        """Return whether the run has ended; False if the API does not answer."""
        with suppress(ServiceError, StackError):
            return self.airflow.run_state(DAG, self.id) not in UNFINISHED
        return False

    def finish(self) -> None:
        """Wait for the end of the run; AssertionError if it failed."""
        assert self.end() == "success", self.report()

    def end(self) -> str:
        """Wait for the end of the run and return its state."""
        eventually(f"{self.id} ends", self.has_ended, RUN_SECONDS, self.report, PAUSE)
        return self.airflow.run_state(DAG, self.id)

    def note(self) -> str:
        """Return the note of the run, which names the outcome of the recipe."""
        return str(self._call("GET")["note"])

    def cancel(self) -> None:
        """Mark the run as failed, as a person does in Airflow's UI."""
        self._call("PATCH", {"state": "failed"})

    def approve(self) -> None:
        """Wait for the run's question, and approve its model, as a person does in Airflow's UI."""
        scheduler = self.cluster.hosts["control"].containers["airflow-scheduler"]
        # Airflow 3.3 loses an answer that arrives before it has released the task; no person is that quick.
        released = f"TaskInstance Finished: dag_id={DAG}, task_id={RECIPE}.approve, run_id={self.id}"
        eventually("the run asks", lambda: released in scheduler.log, RUN_SECONDS, self.report, PAUSE)
        answer = {"chosen_options": ["Approve"], "params_input": {}}
        self._call("PATCH", answer, f"/taskInstances/{RECIPE}.approve/-1/hitlDetails")

    def _call(self, method: str, body: object = None, path: str = "") -> Any:
        """Send a request about the run to Airflow's API."""
        return self.airflow._call(method, f"/api/v2/dags/{DAG}/dagRuns/{quote(self.id, safe='')}{path}", body)

    def tries(self) -> int:
        """Return the number of tasks that were started more than once."""
        return sum(item.try_number > 1 for item in self.tasks().values())

    def lost(self) -> int:
        """Return the number of tasks that have failed for good."""
        return sum(item.state in LOST for item in self.tasks().values())

    def deployed(self) -> Deployment:
        """Return the newest deployment."""
        latest = DeploymentLog(self.cluster.store()).latest()
        assert latest is not None
        return latest

    def report(self) -> str:
        """Return the state of each task."""
        return ", ".join(f"{name} {item.state} ({item.try_number})" for name, item in self.tasks().items())

    @contextmanager
    def fault(self, name: str, task: str) -> Iterator[Watch]:
        """Run the block, which causes the fault, once `task` has started; then wait until the run continues.

        The client asks the release that the bench has deployed.
        """
        self.reach(task)
        with watched(self.cluster, self.cluster.store(), name, ASKED, self.lost) as watch:
            yield watch
            self.pass_over(self.newest())
            watch.note_recovery()


def begin(cluster: Cluster, airflow: AirflowApi, **conf: object) -> Night:
    """Trigger a run; `conf` are further values of the form."""
    eventually("the DAG is read", lambda: _is_read(airflow), RUN_SECONDS, pause=PAUSE)
    return Night(cluster, airflow, airflow.trigger(DAG, CONF | conf, "topology"))


def backfill(cluster: Cluster, airflow: AirflowApi, days: int, **conf: object) -> list[Night]:
    """Create runs for the last days, as `airflow backfill create` does."""
    # Up to now: otherwise, Airflow would also start the newest run of the schedule, which this Airflow has missed.
    now = datetime.now(UTC)
    dates = {"from_date": (now - timedelta(days=days)).isoformat(), "to_date": now.isoformat()}
    airflow._call("POST", "/api/v2/backfills", {"dag_id": DAG, "dag_run_conf": CONF | conf, **dates})
    found = airflow._get(f"/api/v2/dags/{DAG}/dagRuns", {"run_type": "backfill"})["dag_runs"]
    return [Night(cluster, airflow, str(run["dag_run_id"])) for run in found]


@contextmanager
def changed_recipe(cluster: Cluster, changes: Mapping[str, str]) -> Iterator[None]:
    """Give the workers a copy of the recipe with other lines during the block."""
    text = (RECIPES / f"{RECIPE}.toml").read_text(encoding="utf-8")
    for line, other in changes.items():
        assert text.count(line) == 1, line
        text = text.replace(line, other)
    own = [cluster.hosts[name].state / "volumes" / "no-recipes" for name in WORKERS]
    for directory in own:
        shutil.copytree(RECIPES / "behaviour", directory / "behaviour")
        (directory / f"{RECIPE}.toml").write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        for directory in own:
            shutil.rmtree(directory / "behaviour")
            (directory / f"{RECIPE}.toml").unlink()


@contextmanager
def noticed_within(limit: float, scheduler: Container) -> Iterator[None]:
    """Let a task count as dead after `limit` seconds without a heartbeat; by default, after five minutes."""
    scheduler.further = {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": f"{limit:.0f}"}
    scheduler.crash()
    try:
        yield
    finally:
        scheduler.further = {}
        scheduler.crash()


def _is_read(airflow: AirflowApi) -> bool:
    with suppress(ServiceError):
        return airflow.has_dag(DAG)
    return False
