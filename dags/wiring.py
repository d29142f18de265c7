"""Code that the DAG files share: Airflow errors, jobs from the trigger form, notes of runs, links."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from airflow.sdk import Asset, BaseOperatorLink, Context, CronTriggerTimetable, get_current_context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from pipeline.alerts import alert
from pipeline.errors import RejectedDataError, SaebyeokError
from pipeline.job import OVERRIDES, Job, day_of, is_by_hand, keep_libraries_home, open_job
from pipeline.recipes.files import recipe_directories, recipe_files
from pipeline.run_notes import RUN_NOTE
from pipeline.settings import Settings, load_settings
from pipeline.stages.running import build
from pipeline.stages.stage import DECIDE, Stage
from pipeline.store.figures import DecisionFigures

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

log = logging.getLogger(__name__)

#: Path below which the plugin serves files of artifacts (`plugins/saebyeok_artifacts.py`).
ARTIFACTS = "/saebyeok"


def recipe_paths() -> dict[str, Path]:
    """Return the file of each recipe by name: of the shipped recipes, and those in SAEBYEOK_RECIPES."""
    return recipe_files(recipe_directories(load_settings().recipes))


def scheduled(cron: str | None = None) -> CronTriggerTimetable:
    """Return the schedule `cron`, or that of the settings, in the time zone of the settings."""
    settings = load_settings()
    # By default, unpausing the DAG would run an interval that was missed less than a tenth of a day ago.
    return CronTriggerTimetable(cron or settings.schedule, timezone=settings.time_zone, run_immediately=timedelta(0))


def note(text: str) -> None:
    """Leave a sentence of the running task for the note of its run (`plugins/saebyeok_run_notes.py`)."""
    get_current_context()["ti"].xcom_push(RUN_NOTE, text)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn every error that a retry cannot fix into AirflowFailException, so that Airflow does not retry it.

    Its first line becomes a part of the run's note. A killed worker never gets here; Airflow itself retries its task.
    """
    try:
        yield
    except AirflowException:
        raise
    except SaebyeokError as error:
        if error.retryable:
            raise
        raise failure(str(error)) from error
    except Exception as error:
        # Unexpected: a bug or a broken machine. A retry would only hide it.
        raise failure(f"{type(error).__name__}: {error}") from error


def failure(reason: str) -> AirflowFailException:
    """Return the exception that fails the running task without a retry, and note the first line of the reason."""
    first = reason.partition("\n")[0]
    note(f"{get_current_context()['ti'].task_id} failed: {first}")
    return AirflowFailException(reason)


def task_settings() -> Settings:
    """Return the settings of this machine, with every library's caches kept below `SAEBYEOK_HOME`."""
    settings = load_settings()
    keep_libraries_home(settings)
    # It logs about 200 lines about itself when it is imported.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    return settings


def task_job(recipe: str) -> Job:
    """Return the job of the running task, with the values of the trigger form."""
    context = get_current_context()
    params = context["params"]
    return open_job(
        recipe,
        settings=task_settings(),
        profile=params["profile"],
        overrides={name: params[name] for name in OVERRIDES} | {"learning_rate": as_number(params["learning_rate"])},
        run=context["run_id"],
        force=params["force"],
        cutoff=run_date(context),
        by=asker(context),
    )


def asker(context: Mapping[str, Any]) -> str | None:
    """Return the name of the person who triggered the run, or None for a scheduled run."""
    name = context["dag_run"].triggering_user_name
    return str(name) if name else None


def run_date(context: Mapping[str, Any]) -> date:
    """Return the date of a run in the settings' time zone: a backfilled run sees only data available on its date.

    A run that was triggered by hand may have no logical date; its `run_after` counts instead.
    """
    return day_of(load_settings(), context.get("logical_date") or context["dag_run"].run_after)


def skip(recipe: str, reason: str) -> AirflowSkipException:
    """Return the exception that skips the running task; log and note the reason, which Airflow itself does not show."""
    log.warning("skipped: %s", reason)
    note(f"{recipe} skipped: {reason}")
    return AirflowSkipException(reason)


def make(job: Job, stage: Stage, *refs: str) -> str:
    """Run `stage` on the artifacts at `refs` and return the ref of its artifact, built or reused."""
    return build(job, stage, *map(job.store.open, refs)).ref


def make_told(job: Job, stage: Stage, *refs: str) -> str:
    """Run `make`, and rebuild the result if it is a refusal from a run on the command line.

    That run sent no alert about its refusal, so the refusal must not be reused here. A refusal is an error of
    `validate` or a decision of `decide`.
    """
    try:
        made = job.store.open(make(job, stage, *refs))
        refused = made.manifest.kind == DECIDE.kind and not DecisionFigures.read(made).promote
        told = not (refused and is_by_hand(made.manifest.run))
    except RejectedDataError as error:
        if not is_by_hand(error.run):
            raise
        told = False
    return made.ref if told else make(replace(job, force=True), stage, *refs)


def as_number(value: float | str | None) -> float | None:
    """Return a number that the form may have sent as text, or None if it is empty."""
    return float(value) if value not in (None, "") else None


def champion_asset(recipe: str) -> Asset:
    """Return the asset for the live model of `recipe`, on which other DAGs can be scheduled."""
    return Asset(name=f"champion-{recipe}", uri=f"saebyeok://champion/{recipe}", group="champion")


def artifact_url(ref: str, file: str) -> str:
    """Return the path of an artifact's file on Airflow's host."""
    return _airflow_path(f"{ARTIFACTS}/{ref}/{file}")


def task_url(instance: Any) -> str:
    """Return the path on Airflow's host of the page of a task instance, with its log."""
    return _airflow_path(f"/dags/{instance.dag_id}/runs/{quote(instance.run_id, safe='')}/tasks/{instance.task_id}")


def required_actions_url(instance: Any) -> str:
    """Return the path on Airflow's host of the page where a person answers the question of a task instance."""
    return f"{task_url(instance)}/required_actions"


def _airflow_path(path: str) -> str:
    prefix = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{prefix}{path}"


def report_url(ref: str) -> str:
    """Return the URL of the report of a decision or a release, for links outside Airflow's UI."""
    return with_host(artifact_url(ref, ReportLink.file))


def with_host(path: str) -> str:
    """Return the URL of `path` on Airflow's host, for links outside its UI, or `path` itself if the host is not set."""
    return urljoin(str(conf.get("api", "base_url", fallback="")), path)


class ArtifactLink(BaseOperatorLink):
    """A button on the task that opens a file of the artifact whose ref the task returned or pushed."""

    file = ""
    #: XCom key under which a failing task may push the ref.
    xcom_ref = "artifact"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the path of the file, or an empty string if the task returned no artifact.

        The worker calls this when the task has ended. `ti_key` is then the running task instance, and Airflow stores
        the link with the task's result.
        """
        pull = ti_key.xcom_pull  # type: ignore[attr-defined]
        ref = pull(task_ids=ti_key.task_id) or pull(task_ids=ti_key.task_id, key=self.xcom_ref)
        return artifact_url(ref, self.file) if isinstance(ref, str) else ""


class DataDocsLink(ArtifactLink):
    """Link to the Great Expectations data docs of a validation."""

    name = "Data docs"
    file = "docs/index.html"


class ReportLink(ArtifactLink):
    """Link to the report of a decision or a release."""

    name = "Report"
    file = "report.html"


def alert_failure(context: Context) -> None:
    """Send an alert; Airflow calls this `on_failure_callback` of every task when no retry is left."""
    instance = context["ti"]
    link = with_host(task_url(instance))
    facts = {"dag": instance.dag_id, "run": context["run_id"], "task": instance.task_id, "link": link}
    alert("failed", f"{instance.dag_id}: {instance.task_id} failed: {context.get('exception')} Log: {link}", facts)


#: Default arguments of the tasks of every DAG.
TASK_DEFAULTS = {"owner": "saebyeok", "retries": 2, "on_failure_callback": alert_failure}
