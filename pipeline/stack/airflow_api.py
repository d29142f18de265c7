"""Client of the part of Airflow's REST API that the stack needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict

from pipeline.errors import ServiceError, StackError
from pipeline.http_requests import options_for

#: States of a DAG run that has not ended.
UNFINISHED = ("queued", "running")


class TaskInstance(BaseModel):
    """One task of a DAG run, as Airflow reports it; `duration` is in seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: str
    state: str | None
    try_number: int
    duration: float | None
    pool: str


class AirflowApi:
    """A client of Airflow's REST API that signs in on its first request."""

    def __init__(self, url: str, user: str, password: str) -> None:
        """Create a client for the Airflow UI at `url`."""
        self.url = url.rstrip("/")
        self._credentials = {"username": user, "password": password}
        self._http = httpx.Client(base_url=self.url, timeout=30, **options_for(self.url))

    def __enter__(self) -> Self:
        """Return the client; its connections are closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> dict[str, str]:
        """Return the status of each component: `healthy`, `unhealthy` or `absent`. Empty if Airflow does not answer."""
        try:
            answer = self._http.get("/api/v2/monitor/health")
            document = answer.json() if answer.status_code == 200 else {}
        except (httpx.HTTPError, ValueError):
            return {}
        return {name: part.get("status") or "absent" for name, part in document.items() if isinstance(part, dict)}

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Create the pool unless it exists; an operator may have given an existing one more slots."""
        if self._get(f"/api/v2/pools/{quote(name)}", missing=True) is None:
            body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
            self._call("POST", "/api/v2/pools", body)

    def has_dag(self, dag: str) -> bool:
        """Return whether Airflow has read the DAG."""
        return self._get(f"/api/v2/dags/{dag}", missing=True) is not None

    def import_errors(self) -> list[str]:
        """Return the stack traces of DAG files that Airflow could not import."""
        return [error["stack_trace"] for error in self._get("/api/v2/importErrors")["import_errors"]]

    def is_paused(self, dag: str) -> bool:
        """Return whether the DAG is paused: neither its schedule nor a trigger starts a run."""
        return bool(self._get(f"/api/v2/dags/{dag}")["is_paused"])

    def unpause(self, dag: str) -> None:
        """Unpause the DAG, so that it runs on its schedule."""
        self._call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})

    def next_run(self, dag: str) -> datetime | None:
        """Return the time of the next scheduled run, or None if the DAG has no schedule or is paused."""
        found = self._get(f"/api/v2/dags/{dag}")["next_dagrun_run_after"]
        return datetime.fromisoformat(found) if found else None

    def unfinished_runs(self, dag: str) -> dict[str, str]:
        """Return the states of the queued and running runs by id, oldest first."""
        return self._runs(dag, UNFINISHED, "run_after", 100)

    def active_run(self, dag: str) -> str | None:
        """Return the id of the oldest queued or running run, or None if there is none."""
        return next(iter(self._runs(dag, UNFINISHED, "run_after", 1)), None)

    def newest_run(self, dag: str, state: str) -> str | None:
        """Return the id of the newest run that ended in `state`, or None if there is none."""
        return next(iter(self._runs(dag, (state,), "-run_after", 1)), None)

    def _runs(self, dag: str, states: tuple[str, ...], order: str, limit: int) -> dict[str, str]:
        runs = self._get(f"/api/v2/dags/{dag}/dagRuns", {"state": states, "order_by": order, "limit": limit})
        return {str(run["dag_run_id"]): str(run["state"]) for run in runs["dag_runs"]}

    def trigger(self, dag: str, conf: Mapping[str, Any], note: str) -> str:
        """Trigger a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf), "note": note}
        return str(self._call("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag: str, run: str) -> str:
        """Return the state of a run: `queued`, `running`, `success` or `failed`."""
        return str(self._get(f"/api/v2/dags/{dag}/dagRuns/{quote(run, safe='')}")["state"])

    def tasks(self, dag: str, run: str) -> list[TaskInstance]:
        """Return all tasks of a run."""
        answer = self._get(f"/api/v2/dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances", {"limit": 500})
        return [TaskInstance.model_validate(task) for task in answer["task_instances"]]

    def task_order(self, dag: str) -> list[str]:
        """Return the task ids of a DAG in topological order, tasks that become ready together sorted by name.

        Raises StackError if the tasks form a cycle.
        """
        answer = self._get(f"/api/v2/dags/{dag}/tasks")
        waiting = {task["task_id"]: set(task["downstream_task_ids"]) for task in answer["tasks"]}
        ordered: list[str] = []
        while waiting:
            blocked = set().union(*waiting.values())
            ready = [name for name in waiting if name not in blocked]
            if not ready:
                raise StackError(f"the tasks of {dag} form a cycle")
            ordered += sorted(ready)
            for name in ready:
                del waiting[name]
        return ordered

    def returned(self, dag: str, run: str, task: str) -> Any:
        """Return the return value of a task, or None if it returned nothing."""
        path = f"/api/v2/dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances/{task}/xcomEntries/return_value"
        entry = self._get(path, missing=True)
        return entry["value"] if entry else None

    def _get(self, path: str, params: Mapping[str, Any] | None = None, *, missing: bool = False) -> Any:
        return self._call("GET", path, params=params, missing=missing)

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        missing: bool = False,
    ) -> Any:
        """Send one request and return its JSON; with `missing`, return None for a 404.

        Raises ServiceError if Airflow does not answer, StackError if it refuses the request.
        """
        try:
            self._sign_in()
            answer = self._http.request(method, path, json=body, params=params)
        except httpx.HTTPError as error:
            raise ServiceError(f"Airflow at {self.url} does not answer ({error}); see: saebyeok status") from error
        if missing and answer.status_code == 404:
            return None
        if answer.is_error:
            raise StackError(f"Airflow refused {method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def _sign_in(self) -> None:
        if "authorization" not in self._http.headers:
            answer = self._http.post("/auth/token", json=self._credentials)
            if answer.is_error:
                raise StackError(f"Airflow at {self.url} refused the password in HOME/airflow ({answer.status_code})")
            self._http.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
