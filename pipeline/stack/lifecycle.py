"""Starting, stopping and asking the local stack."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx

from pipeline.errors import SaebyeokError, StackError
from pipeline.settings import ROOT, Settings
from pipeline.stack import preflight
from pipeline.stack.airflow_api import AirflowApi
from pipeline.stack.airflow_home import USER, airflow_home, prepare, read_password, setting_variables, stack_environment
from pipeline.stack.processes import (
    Member,
    Record,
    is_running,
    last_lines,
    marked_processes,
    new_mark,
    read_record,
    start,
    stop,
    write_record,
)
from pipeline.stack.terminal import Progress, clock

DAG = "nightly_retrain"
#: All DAGs that ship; both are switched on, so that a roll-back does not wait in the queue.
DAGS = (DAG, "retention", "rollback")
#: Seconds until everything must answer; about 50 are usual on two cores.
START_SECONDS = 300.0
#: Variables of W&B's that the tasks inherit.
WANDB = ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "WANDB_PROJECT")
#: What a running stack was started with: other settings or other code mean a restart.
CODE = ("pipeline", "serving", "dags", "plugins", "expectations")


def commands() -> dict[str, list[str]]:
    """The processes of the stack by name; the first is stopped last."""
    airflow = [str(Path(sys.executable).parent / "airflow")]
    return {
        "airflow-api": [*airflow, "api-server"],
        # The API server reads the log files itself on the same machine: no log servers on more ports.
        "airflow-scheduler": [*airflow, "scheduler", "--skip-serve-logs"],
        "airflow-dags": [*airflow, "dag-processor"],
        "airflow-triggerer": [*airflow, "triggerer", "--skip-serve-logs"],
        "service": [sys.executable, "-m", "serving"],
    }


def record_path(settings: Settings) -> Path:
    """Where what was started is recorded."""
    return settings.home / "stack.json"


def open_api(settings: Settings) -> AirflowApi:
    """A client of this stack's Airflow."""
    return AirflowApi(settings.airflow_url, USER, read_password(settings))


def up(settings: Settings, progress: Progress) -> AirflowApi:
    """Have everything running and answering, the pool made and the DAGs on. Raises StackError."""
    addresses = settings.airflow_url, settings.service_url
    problems = (
        preflight.writing_problem(settings.home),
        data_problem(settings),
        # Here already: a running stack would be stopped for an address that is none.
        preflight.address_problem(addresses[0], "SAEBYEOK_AIRFLOW_URL"),
        preflight.address_problem(addresses[1], "SAEBYEOK_SERVICE_URL"),
        preflight.same_port_problem(*addresses),
    )
    for problem in problems:
        if problem:
            raise StackError(problem)
    with locked(settings):
        api = open_api(settings)
        record = read_record(record_path(settings))
        if record and _reusable(record, settings):
            progress.step(f"reusing the running stack: Airflow at {settings.airflow_url}, {settings.service_url}")
        else:
            if record:
                _clear(record, api, progress)
            _start(settings, progress)
        try:
            _wait(settings, api, progress)
            _switch_on(api, progress)
        except SaebyeokError:
            _give_up(settings)
            raise
    return api


def down(settings: Settings, progress: Progress) -> None:
    """Stop what `up` started, and nothing else."""
    path = record_path(settings)
    if not path.exists():
        progress.say("nothing to stop: no stack was started with this SAEBYEOK_HOME")
        return
    with locked(settings):
        record = read_record(path)
        if record is None:
            # Another `down` was quicker, or a damaged record is of processes that have ended.
            path.unlink(missing_ok=True)
            return
        progress.show("stopping Airflow and the service")
        count = stop(record)
        left = marked_processes(record.mark)
        if left:
            raise StackError(f"these processes of the stack do not end: {', '.join(str(item.pid) for item in left)}")
        path.unlink()
    progress.step(f"stopped Airflow and the service ({count} processes)" if count else "all had ended before")


def _give_up(settings: Settings) -> None:
    """Stop what could not be brought to answer: half a stack is of no use, and its ports would be taken."""
    if record := read_record(record_path(settings)):
        stop(record)
        record_path(settings).unlink(missing_ok=True)


def data_problem(settings: Settings) -> str | None:
    """Which published files are missing where data is named."""
    if settings.data is None or settings.source != "directory":
        return None
    return preflight.data_problem(settings.data, ROOT / "pipeline" / "recipes")


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Keep two `up` or `down` from working at once. Raises StackError where another one is."""
    with (settings.home / "stack.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError("another `saebyeok up` or `down` is at work: wait for it") from None
        yield


def fingerprint(settings: Settings) -> str:
    """Digest of the settings and the code that the processes start with."""
    read = setting_variables(settings, secret=True)
    read |= {name: os.environ[name] for name in WANDB if name in os.environ}
    digest = hashlib.sha256(repr(sorted(read.items())).encode())
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".toml", ".json", ".yml", ".html"} and "uncommitted" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _reusable(record: Record, settings: Settings) -> bool:
    """Whether all of it runs and was started with what is asked for now."""
    running = all(is_running(member, record.mark) for member in record.members.values())
    return running and set(record.members) == set(commands()) and record.fingerprint == fingerprint(settings)


def _clear(record: Record, api: AirflowApi, progress: Progress) -> None:
    """Stop what is left of another start. Raises StackError where that would break off a run."""
    if api.health() and (run := api.active_run(DAG)):
        raise StackError(
            f"the stack runs with other settings or code, and {run} is at work in it: "
            "wait until it has ended (saebyeok status), or stop it with: make down"
        )
    progress.show("stopping what was started with other settings or code, or has ended in part")
    stop(record)
    progress.step("stopped what was started with other settings or code, or had ended in part")


def _start(settings: Settings, progress: Progress) -> None:
    for name in ("airflow_url", "service_url"):
        if problem := preflight.port_problem(getattr(settings, name), f"SAEBYEOK_{name.upper()}"):
            raise StackError(problem)
    if problem := preflight.room_problem(settings.home, preflight.RUN_BYTES):
        raise StackError(problem)
    prepare(settings)
    environment = stack_environment(settings)
    logs = settings.home / "logs"
    logs.mkdir(exist_ok=True)
    _migrate(settings, environment, logs / "airflow-migrate.log", progress)
    members: dict[str, Member] = {}
    mark = new_mark()
    for name, command in commands().items():
        members[name] = start(command, mark=mark, log=logs / f"{name}.log", environment=environment, cwd=ROOT)
        record = Record(
            mark=mark,
            fingerprint=fingerprint(settings),
            airflow_url=settings.airflow_url,
            service_url=settings.service_url,
            members=members,
        )
        write_record(record_path(settings), record)
    progress.step(f"started Airflow and the service; their logs: {logs}")


def _migrate(settings: Settings, environment: dict[str, str], log: Path, progress: Progress) -> None:
    """Make or upgrade Airflow's database, once for each version of Airflow."""
    done = airflow_home(settings) / f"database-of-{version('apache-airflow-core')}"
    if done.exists():
        return
    progress.show("preparing Airflow's database")
    with log.open("ab") as file:
        command = [str(Path(sys.executable).parent / "airflow"), "db", "migrate"]
        status = subprocess.run(  # noqa: S603
            command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status != 0:
        raise StackError("\n".join([*last_lines(log, 10), f"Airflow's database could not be prepared; see {log}"]))
    done.touch()
    progress.step("prepared Airflow's database")


def _wait(settings: Settings, api: AirflowApi, progress: Progress) -> None:
    """Wait until everything answers. Raises StackError where a process ends or it takes too long."""
    begun = time.monotonic()
    record = read_record(record_path(settings))
    while waiting := _not_ready(settings, api):
        for name, member in record.members.items() if record else ():
            if record and not is_running(member, record.mark):
                tail = "\n".join(last_lines(member.log, 12))
                raise StackError(f"{tail}\n{name} has ended while starting; its log is {member.log}")
        if time.monotonic() - begun > START_SECONDS:
            raise StackError(f"no answer after {clock(START_SECONDS)} from: {waiting}; see {settings.home / 'logs'}")
        progress.show(f"waiting for {waiting} (Airflow takes about a minute)")
        time.sleep(1)


def _not_ready(settings: Settings, api: AirflowApi) -> str:
    """What does not answer yet, as text; empty when all does."""
    health = api.health()
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    missing = [name.replace("_", " ") for name in parts if health.get(name) != "healthy"]
    waiting = ["Airflow"] if not health else [f"Airflow's {name}" for name in missing]
    return ", ".join(waiting if service_answers(settings) else [*waiting, "the service"])


def service_answers(settings: Settings) -> bool:
    """Whether the service is alive; without a deployment it is not ready yet."""
    try:
        return httpx.get(f"{settings.service_url}/livez", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _switch_on(api: AirflowApi, progress: Progress) -> None:
    """Make the pool, wait until the DAGs are read, and unpause them."""
    api.ensure_pool("gpu", 1, "One training at a time")
    begun = time.monotonic()
    while not all(api.has_dag(dag) for dag in DAGS):
        if errors := api.import_errors():
            raise StackError(f"Airflow cannot read the DAG files:\n{errors[0]}")
        if time.monotonic() - begun > START_SECONDS:
            raise StackError(f"Airflow has not found {', '.join(DAGS)} in {ROOT / 'dags'}")
        progress.show("waiting for Airflow to read the DAGs")
        time.sleep(1)
    for dag in DAGS:
        api.unpause(dag)
