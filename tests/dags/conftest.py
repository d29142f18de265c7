"""Airflow with a migrated database in the session's own home, and the DAGs parsed by it."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import ROOT, Settings
from tests.hook import Hook, web_hook
from tests.service import free_port

PARSE = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag

folder = Path(sys.argv[1])
bag = BundleDagBag(str(folder), bundle_path=folder, bundle_name="dags-folder")
graph = {
    dag.dag_id: {
        task.task_id: {
            "downstream": sorted(task.downstream_task_ids),
            "queue": task.queue,
            "pool": task.pool,
            "retries": task.retries,
            "doc": task.doc_md or "",
            "links": [link.name for link in task.operator_extra_links],
            "outlets": [getattr(outlet, "uri", outlet.name) for outlet in task.outlets],
        }
        for task in dag.tasks
    }
    for dag in bag.dags.values()
}
print(json.dumps({"errors": bag.import_errors, "modules": sorted(sys.modules), "graph": graph}))
"""


@pytest.fixture(scope="session")
def airflow_home() -> Iterator[Path]:
    """AIRFLOW_HOME of this session, its database migrated."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "API_AUTH__JWT_SECRET": secrets.token_hex(64),
        }.items():
            patch.setenv(f"AIRFLOW__{name}", value)
        run_airflow(["db", "migrate"])
        yield Path(os.environ["AIRFLOW_HOME"])


#: `airflow ...` for each line of words that it is given, in one process: starting one takes ten seconds.
COMMANDS = """
import json, sys
from airflow.cli.cli_parser import get_parser

failed = []
for command in json.loads(sys.argv[1]):
    arguments = get_parser().parse_args(command)
    try:
        arguments.func(arguments)
        failed.append(False)
    except SystemExit as end:
        failed.append(bool(end.code))
print(json.dumps(failed))
"""


def run_airflow(*commands: list[str], fail: Sequence[bool] = (False,), **environment: str) -> str:
    """Each `airflow ...` to its end, with the checkout importable; all that they said. Just those in `fail` must."""
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:]
    assert json.loads(result.stdout.splitlines()[-1]) == list(fail), result.stdout[-6000:]
    return result.stdout


def parse(root: Path) -> Mapping[str, Any]:
    """What a fresh Airflow makes of the DAGs of the checkout at `root`, and what it imported for that."""
    result = subprocess.run(
        [sys.executable, "-c", PARSE, str(root / "dags")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=root,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    document: Mapping[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return document


@pytest.fixture(scope="session")
def parsed(airflow_home: Path) -> Mapping[str, Any]:
    """The DAGs as this checkout has them."""
    return parse(ROOT)


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A web hook for alerts."""
    with web_hook() as hook:
        yield hook


@pytest.fixture
def airflow(airflow_home: Path, settings: Settings) -> Callable[..., str]:
    """`airflow(dag, *confs, **environment)` runs a DAG with each to its end, in the test's own home; their output."""

    def run(dag: str, *confs: dict[str, Any], fail: Sequence[bool] = (False,), **environment: str) -> str:
        environment = {
            "SAEBYEOK_HOME": str(settings.home),
            # Nothing answers there.
            "SAEBYEOK_SERVICE_URL": f"http://127.0.0.1:{free_port()}",
        } | environment
        commands = [["dags", "test", dag, "--conf", json.dumps(conf)] for conf in confs]
        return run_airflow(*commands, fail=fail, **environment)

    return run


def rows(airflow_home: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(airflow_home / "airflow.db")) as database:
        return database.execute(query, values).fetchall()


def newest_runs(airflow_home: Path, dag: str, count: int) -> list[tuple[str, dict[str, str]]]:
    """The newest runs of a DAG, the oldest of them first: the id, and the state of each of its tasks."""
    found = rows(airflow_home, "select run_id from dag_run where dag_id = ? order by id desc limit ?", dag, str(count))
    states = "select task_id, state from task_instance where dag_id = ? and run_id = ?"
    return [(run, dict(rows(airflow_home, states, dag, run))) for (run,) in reversed(found)]
