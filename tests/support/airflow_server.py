"""A server that answers the few requests of `up` as Airflow does; `tests/e2e` runs Airflow itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

from pipeline.stack.airflow_api import AirflowApi
from pipeline.stack.lifecycle import DAG, DAGS
from tests.support.http_server import running


@dataclass
class AirflowState:
    """DAGs that are paused, and the ids of unfinished runs of nightly_retrain."""

    paused: set[str] = field(default_factory=set)
    runs: list[str] = field(default_factory=list)


@contextmanager
def airflow_server(state: AirflowState) -> Iterator[AirflowApi]:
    """Yield a client of a server that reads and changes `state`."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
            content = json.dumps(self.document(self.path.partition("?")[0].split("/")[1:], body)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def document(self, path: list[str], body: dict[str, object]) -> object:
            if path == ["auth", "token"]:
                return {"access_token": "token"}
            dag = path[3]
            assert dag in DAGS
            if self.command == "PATCH":
                assert body == {"is_paused": False}
                state.paused.discard(dag)
            if path[4:] != ["dagRuns"]:
                next_run = None if dag in state.paused else "2026-11-30T18:00:00Z"
                return {"is_paused": dag in state.paused, "next_dagrun_run_after": next_run}
            if self.command == "POST":
                assert dag == DAG
                state.runs.append("new")
                return {"dag_run_id": "new"}
            runs = state.runs if dag == DAG else []
            return {"dag_runs": [{"dag_run_id": run, "state": "running"} for run in runs]}

        do_GET = do_POST = do_PATCH = answer  # noqa: N815 - the names are http.server's

        def log_message(self, *args: object) -> None:
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as url, AirflowApi(url, "admin", "secret") as api:
        yield api
