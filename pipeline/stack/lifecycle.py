"""Start, stop and check the local stack."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx

from pipeline.atomic_files import locked
from pipeline.config_file import ROOT
from pipeline.errors import SaebyeokError, StackError
from pipeline.http_requests import get
from pipeline.progress import format_duration
from pipeline.recipes.files import recipe_directories
from pipeline.settings import Settings
from pipeline.stack import preflight
from pipeline.stack.airflow_api import AirflowApi
from pipeline.stack.airflow_home import USER, airflow_home, prepare, read_password, setting_variables, stack_environment
from pipeline.stack.processes import (
    Member,
    StackRecord,
    is_running,
    last_lines,
    marked_processes,
    new_mark,
    read_record,
    start,
    stop,
    write_record,
)
from pipeline.stack.terminal import Progress

DAG = "nightly_retrain"
#: DAGs with a schedule, which Airflow creates paused; the others run when they are triggered.
SCHEDULED = (DAG, "retention")
#: All DAGs of the project.
DAGS = (DAG, "accept_arrival", "hold", "retention", "rollback")
#: Seconds within which everything must answer; about 50 are usual on two cores.
START_SECONDS = 300.0
#: W&B variables that the tasks inherit.
WANDB = ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "WANDB_PROJECT")
#: Folders of the code in a stack's fingerprint. `up` restarts a stack with other settings or other code.
CODE = ("pipeline", "serving", "dags", "plugins", "expectations")


def commands() -> dict[str, list[str]]:
    """Return the commands of the stack's processes by name; the first process is stopped last."""
    airflow = [str(Path(sys.executable).parent / "airflow")]
    return {
        "airflow-api": [*airflow, "api-server"],
        # The API server reads the log files directly on the same machine, so no log servers are needed.
        "airflow-scheduler": [*airflow, "scheduler", "--skip-serve-logs"],
        "airflow-dags": [*airflow, "dag-processor"],
        "airflow-triggerer": [*airflow, "triggerer", "--skip-serve-logs"],
        "service": [sys.executable, "-m", "serving"],
    }


def record_path(settings: Settings) -> Path:
    """Return the path of the record of the started processes."""
    return settings.home / "stack.json"


def open_api(settings: Settings) -> AirflowApi:
    """Return a client of this stack's Airflow."""
    return AirflowApi(settings.airflow_url, USER, read_password(settings))


def up(settings: Settings, progress: Progress) -> AirflowApi:
    """Start the stack, wait until it answers, and create the pool. Returns a client of its Airflow.

    A running stack with the same settings and code is reused. Raises StackError if something prevents the start.
    """
    addresses = settings.airflow_url, settings.service_url
    problems = (
        preflight.writing_problem(settings.home),
        data_problem(settings),
        # Check the addresses first, so that an invalid one does not stop a running stack.
        preflight.address_problem(addresses[0], "SAEBYEOK_AIRFLOW_URL"),
        preflight.address_problem(addresses[1], "SAEBYEOK_SERVICE_URL"),
        preflight.same_port_problem(*addresses),
    )
    for problem in problems:
        if problem:
            raise StackError(problem)
    with stack_lock(settings):
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
            _prepare_airflow(settings, api, progress)
        except SaebyeokError:
            _give_up(settings)
            raise
    return api


def down(settings: Settings, progress: Progress) -> None:
    """Stop the processes that `up` started, and no others. Raises StackError if some of them do not end."""
    path = record_path(settings)
    if not path.exists():
        progress.say("nothing to stop: no stack was started with this SAEBYEOK_HOME")
        return
    with stack_lock(settings):
        record = read_record(path)
        if record is None:
            # Another `down` was faster, or a damaged record belongs to processes that have ended.
            path.unlink(missing_ok=True)
            return
        progress.show("stopping Airflow and the service")
        count = stop(record)
        left = marked_processes(record.mark)
        if left:
            raise StackError(
                f"processes of the stack do not end: pid {', '.join(str(item.pid) for item in left)}; end them with "
                "`kill -9`, then run the command again"
            )
        path.unlink()
    progress.step(
        f"stopped Airflow and the service ({count} processes)" if count else "all processes had already ended"
    )


def _give_up(settings: Settings) -> None:
    """Stop a stack that does not come up: half a stack is useless and occupies its ports."""
    if record := read_record(record_path(settings)):
        stop(record)
        record_path(settings).unlink(missing_ok=True)


def data_problem(settings: Settings) -> str | None:
    """Return a message that names the missing published files, or None if none is missing or no data is set."""
    if settings.data is None or settings.source != "directory":
        return None
    return preflight.data_problem(settings.data, recipe_directories(settings.recipes))


@contextmanager
def stack_lock(settings: Settings) -> Iterator[None]:
    """Hold the lock that `up` and `down` share. Raises StackError if another process holds it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(settings.home / "stack.lock", wait=False))
        except BlockingIOError:
            raise StackError("another `saebyeok up` or `down` is running: wait until it ends") from None
        yield


def fingerprint(settings: Settings) -> str:
    """Return a digest of the settings and the code that the processes start with."""
    read = setting_variables(settings, secret=True)
    read |= {name: os.environ[name] for name in WANDB if name in os.environ}
    digest = hashlib.sha256(repr(sorted(read.items())).encode())
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".toml", ".json", ".yml", ".html"} and "uncommitted" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _reusable(record: StackRecord, settings: Settings) -> bool:
    """Return whether all processes run and were started with the current settings and code."""
    running = all(is_running(member, record.mark) for member in record.members.values())
    return running and set(record.members) == set(commands()) and record.fingerprint == fingerprint(settings)


def _clear(record: StackRecord, api: AirflowApi, progress: Progress) -> None:
    """Stop the processes of an earlier start. Raises StackError if a run is in progress."""
    if api.health() and (run := api.active_run(DAG)):
        raise StackError(
            f"the stack runs with other settings or code, and run {run} is in progress: "
            "wait until it ends (saebyeok status), or stop the stack: make down"
        )
    progress.show("stopping the old stack, which has other settings or code or is incomplete")
    stop(record)
    progress.step("stopped the old stack, which had other settings or code or was incomplete")


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
    mark = new_mark()
    if not (done := _migrated(settings)).exists():
        # On another core meanwhile. A new environment has no bytecode files, and otherwise the scheduler would compile
        # the libraries of the tasks later, while all others wait for it. The process ends by itself.
        compiling = [sys.executable, "-m", "pipeline.stack.preload"]
        start(compiling, mark=mark, log=logs / "compiling.log", environment=environment, cwd=ROOT)
        _migrate(environment, logs / "airflow-migrate.log", progress)
        done.touch()
    members: dict[str, Member] = {}
    for name, command in commands().items():
        members[name] = start(command, mark=mark, log=logs / f"{name}.log", environment=environment, cwd=ROOT)
        record = StackRecord(
            mark=mark,
            fingerprint=fingerprint(settings),
            airflow_url=settings.airflow_url,
            service_url=settings.service_url,
            members=members,
        )
        write_record(record_path(settings), record)
    progress.step(f"started Airflow and the service; logs: {logs}")


def _migrated(settings: Settings) -> Path:
    """Return the file that exists once Airflow's database has the tables of this version."""
    return airflow_home(settings) / f"database-of-{version('apache-airflow-core')}"


def _migrate(environment: dict[str, str], log: Path, progress: Progress) -> None:
    """Create or upgrade Airflow's database. Raises StackError if that fails."""
    progress.show("preparing Airflow's database")
    with log.open("ab") as file:
        command = [str(Path(sys.executable).parent / "airflow"), "db", "migrate"]
        status = subprocess.run(  # noqa: S603
            command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status != 0:
        raise StackError("\n".join([*last_lines(log, 10), f"could not prepare Airflow's database; see {log}"]))
    progress.step("prepared Airflow's database")


def _wait(settings: Settings, api: AirflowApi, progress: Progress) -> None:
    """Wait until everything answers. Raises StackError if a process ends or `START_SECONDS` pass."""
    begun = time.monotonic()
    record = read_record(record_path(settings))
    while waiting := _not_ready(settings, api):
        for name, member in record.members.items() if record else ():
            if record and not is_running(member, record.mark):
                tail = "\n".join(last_lines(member.log, 12))
                raise StackError(f"{tail}\n{name} ended while starting; see its log {member.log}")
        if time.monotonic() - begun > START_SECONDS:
            after = format_duration(START_SECONDS)
            raise StackError(f"no answer after {after} from: {waiting}; see {settings.home / 'logs'}")
        progress.show(f"waiting for {waiting} (Airflow takes about a minute)")
        time.sleep(1)


def _not_ready(settings: Settings, api: AirflowApi) -> str:
    """Return the components that do not answer yet, as text; empty if all answer."""
    health = api.health()
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    missing = [name.replace("_", " ") for name in parts if health.get(name) != "healthy"]
    waiting = ["Airflow"] if not health else [f"Airflow's {name}" for name in missing]
    return ", ".join(waiting if service_answers(settings) else [*waiting, "the service"])


def service_answers(settings: Settings) -> bool:
    """Return whether the service is alive; without a deployment it is alive but not ready."""
    try:
        url = f"{settings.service_url}/livez"
        return get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _prepare_airflow(settings: Settings, api: AirflowApi, progress: Progress) -> None:
    """Create the pool, and wait until Airflow has read the DAGs. Raises StackError if it cannot."""
    api.ensure_pool(settings.gpu_pool, 1, "One training at a time")
    begun = time.monotonic()
    while not all(api.has_dag(dag) for dag in DAGS):
        if errors := api.import_errors():
            raise StackError(f"Airflow cannot read the DAG files:\n{errors[0]}")
        if time.monotonic() - begun > START_SECONDS:
            raise StackError(f"Airflow has not found {', '.join(DAGS)} in {ROOT / 'dags'}")
        progress.show("waiting for Airflow to read the DAGs")
        time.sleep(1)
