"""The command `saebyeok status`: processes, live models, runs, open approvals and disk space."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TextIO
from zoneinfo import ZoneInfo

from pipeline.errors import FAILED, SaebyeokError
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.stack import lifecycle as control
from pipeline.stack.airflow_api import AirflowApi
from pipeline.stack.airflow_home import USER, password_file
from pipeline.stack.lifecycle import SCHEDULED
from pipeline.stack.processes import StackRecord, is_running, read_record
from pipeline.stack.terminal import Progress
from pipeline.store.artifacts import Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import release_id
from pipeline.store.verdicts import find_hold, open_questions


def status(settings: Settings, out: TextIO) -> int:
    """Print the state of processes, models, runs and disk. Returns 0 if all processes run, else FAILED."""
    progress = Progress(out)
    record = read_record(control.record_path(settings))
    store = open_store(settings)
    sections = (
        lambda: process_lines(settings, record),
        lambda: served_lines(store),
        lambda: waiting_lines(store),
        lambda: disk_lines(settings),
    )
    for section in sections:
        for line in _readable(section):
            progress.say(line)
    return 0 if record and _all_run(record) else FAILED


def _readable(lines: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Yield the lines of a section; an error ends the section with a line about it."""
    try:
        yield from lines()
    except SaebyeokError as error:
        yield f"unknown: {error}"


def _all_run(record: StackRecord) -> bool:
    return bool(record.members) and all(is_running(member, record.mark) for member in record.members.values())


def process_lines(settings: Settings, record: StackRecord | None) -> Iterator[str]:
    """Yield the processes of the stack, whether the service and Airflow answer, and Airflow's runs."""
    if record is None:
        yield "no stack was started with this SAEBYEOK_HOME; start one: make up"
        return
    if not record.members:
        yield "stack.json is damaged; parts of the stack still run, and `saebyeok up` restarts it"
    for name, member in record.members.items():
        state = "running" if is_running(member, record.mark) else "ENDED"
        yield f"{name:<18} {state:<8} pid {member.pid:<8} log {member.log}"
    there = settings.model_copy(update={"airflow_url": record.airflow_url, "service_url": record.service_url})
    answer = "answers" if control.service_answers(there) else "does not answer"
    yield f"the service at {there.service_url} {answer}"
    with control.open_api(there) as api:
        well = bool(api.health())
        yield f"Airflow at {there.airflow_url} {'answers' if well else 'does not answer'}"
        yield f"sign in to Airflow as {USER}; the password is in {password_file(settings)}"
        if well:
            yield from run_lines(api, settings.time_zone)


def run_lines(api: AirflowApi, time_zone: str) -> Iterator[str]:
    """Yield the runs in progress and the next run of each DAG with a schedule."""
    for dag in SCHEDULED:
        for run, state in api.unfinished_runs(dag).items():
            yield f"{dag}: {run} is {state}"
        if api.is_paused(dag):
            yield f"{dag}: paused, no run starts; unpause it at {api.url}/dags/{dag}"
        elif next_run := api.next_run(dag):
            yield f"{dag}: the next run starts at {next_run.astimezone(ZoneInfo(time_zone)):%Y-%m-%d %H:%M} {time_zone}"


def served_lines(store: Store) -> Iterator[str]:
    """Yield for each recipe its live release and since when it is live, and whether promotions are on hold."""
    records = DeploymentLog(store)
    latest = records.latest()
    if latest is None:
        yield "nothing is deployed yet"
        return
    for recipe, ref in sorted(latest.releases.items()):
        since = records.promotion(recipe, ref) or latest
        moment = f"{since.created:%Y-%m-%d %H:%M} UTC"
        yield f"{recipe}: {release_id(store, ref)} is live since {moment} (deployment {since.number}, {since.intent})"
        if hold := find_hold(store, recipe):
            yield f"{hold}; to resume: saebyeok release {recipe}"


def waiting_lines(store: Store) -> Iterator[str]:
    """Yield a line for each model that waits for a person's approval, with the deadline and the link to answer."""
    for question in open_questions(store, datetime.now(UTC)):
        yield (
            f"{question.recipe}: a new model waits for approval until {question.deadline:%Y-%m-%d %H:%M} UTC; "
            f"answer at {question.link}"
        )


def disk_lines(settings: Settings) -> Iterator[str]:
    """Yield the free space of the disk that holds HOME, and how to free more."""
    if settings.home.exists():
        free = shutil.disk_usage(settings.home).free / 1e9
        yield f"{settings.home}: {free:,.1f} GB free; `saebyeok prune --dry-run` shows what can be deleted"
