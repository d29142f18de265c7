"""What the DAG files share: errors in Airflow's terms, jobs from the trigger form, alerts, links."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from airflow.sdk import Asset, BaseOperatorLink, Context, CronTriggerTimetable, get_current_context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from pipeline.errors import RejectedDataError, SaebyeokError
from pipeline.job import OVERRIDES, Job, day_in_seoul, is_by_hand, keep_libraries_home, open_job
from pipeline.settings import Settings, load_settings
from pipeline.stages.stage import Stage
from pipeline.store.artifacts import Store
from pipeline.store.deployments import Deployment, DeploymentLog

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

log = logging.getLogger(__name__)

#: Where the plugin serves files of artifacts (`plugins/saebyeok_artifacts.py`).
ARTIFACTS = "/saebyeok"


def daily(clock: str) -> CronTriggerTimetable:
    """Every day at `clock` (such as 03:00) in Seoul."""
    hour, minute = map(int, clock.split(":"))
    # By default the slot that has just passed would be run when the DAG is unpaused, up to a tenth of a day late.
    return CronTriggerTimetable(f"{minute} {hour} * * *", timezone="Asia/Seoul", run_immediately=timedelta(0))


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Leave to Airflow's retries only the errors that a retry can help.

    A worker that was killed never gets here: Airflow itself tries that task again.
    """
    try:
        yield
    except AirflowException:
        raise
    except SaebyeokError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error
    except Exception as error:
        # Unforeseen, so a bug or a machine that is not as it must be: the same again would only hide it.
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def task_settings() -> Settings:
    """The settings of this machine, with every library's caches kept below `SAEBYEOK_HOME`."""
    settings = load_settings()
    keep_libraries_home(settings)
    # It writes some two hundred lines about itself when it is imported.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    return settings


def task_job(recipe: str) -> Job:
    """The job of the running task, with what the trigger form asked for."""
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
    )


def run_date(context: Mapping[str, Any]) -> date:
    """The day in Seoul that a run is for, so that a backfilled night knows what was known then.

    A run that was triggered by hand may have no logical date: then the moment from which on it may run.
    """
    return day_in_seoul(context.get("logical_date") or context["dag_run"].run_after)


def skip(reason: str) -> AirflowSkipException:
    """What to raise to skip the running task; Airflow itself does not log why."""
    log.warning("skipped: %s", reason)
    return AirflowSkipException(reason)


def make(job: Job, stage: Stage, *refs: str) -> str:
    """Run `stage` on the artifacts at `refs`; the ref of what it made, or had made before."""
    return stage.run(job, *map(job.store.open, refs)).ref


def make_told(job: Job, stage: Stage, *refs: str) -> str:
    """As `make`, but made anew where the command line had it refused: whoever gets alerts has not been told of that.

    Only what refuses is looked at: `validate` by its error, `decide` by its decision.
    """
    try:
        made = job.store.open(make(job, stage, *refs))
        told = made.figures.get("promote", True) or not is_by_hand(made.manifest.run)
    except RejectedDataError as error:
        if not is_by_hand(error.run):
            raise
        told = False
    return made.ref if told else make(replace(job, force=True), stage, *refs)


def as_number(value: float | str | None) -> float | None:
    """A number that the form may have sent as text; empty is None."""
    return float(value) if value not in (None, "") else None


def champion_asset(recipe: str) -> Asset:
    """The asset that stands for the model of `recipe` that is being served; other DAGs may follow it."""
    return Asset(name=f"champion-{recipe}", uri=f"saebyeok://champion/{recipe}", group="champion")


def promotion(store: Store, recipe: str, release: str) -> Deployment | None:
    """The deployment by which `release` became what it is now, the champion of `recipe`; None where it is not."""
    records = DeploymentLog(store)
    found = None
    for number in reversed(records.numbers()):
        deployment = records.get(number)
        if deployment.releases.get(recipe) != release:
            break
        found = deployment
    return found


def artifact_url(ref: str, file: str) -> str:
    """Address of a file of an artifact, below Airflow's own."""
    prefix = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{prefix}{ARTIFACTS}/{ref}/{file}"


def with_host(path: str) -> str:
    """`path` on Airflow's own host, for a reader who is not in its UI; as it is where Airflow was not told its host."""
    return urljoin(str(conf.get("api", "base_url", fallback="")), path)


class ArtifactLink(BaseOperatorLink):
    """A button on the task that opens a file of the artifact whose ref the task returned (or pushed)."""

    file = ""
    #: XCom key under which a task that fails may leave the ref.
    xcom_ref = "artifact"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The file's address, or nothing where the task returned no artifact.

        Called by the worker once the task has ended; `ti_key` is then the running task instance, and
        Airflow keeps the answer beside the task's result.
        """
        pull = ti_key.xcom_pull  # type: ignore[attr-defined]
        ref = pull(task_ids=ti_key.task_id) or pull(task_ids=ti_key.task_id, key=self.xcom_ref)
        return artifact_url(ref, self.file) if isinstance(ref, str) else ""


class DataDocsLink(ArtifactLink):
    """Great Expectations' data docs of a validation."""

    name = "Data docs"
    file = "docs/index.html"


class ReportLink(ArtifactLink):
    """The report of a decision, or of a release."""

    name = "Report"
    file = "report.html"


def alert(event: str, text: str, facts: Mapping[str, Any]) -> None:
    """Log `text` as an error and post it to `SAEBYEOK_ALERT_WEBHOOK` where that is set; never raises.

    The JSON has `event`, `text` (which chat services show as it is) and `facts`.
    """
    log.error("%s", text)
    try:
        webhook = load_settings().alert_webhook
        if webhook is None:
            return
        import httpx

        body = {"event": event, "text": text, **facts}
        httpx.post(webhook.get_secret_value(), json=body, timeout=10).raise_for_status()
    except Exception as error:  # noqa: BLE001 - an alert that cannot be sent must not fail what it is about
        log.warning("the alert could not be sent to SAEBYEOK_ALERT_WEBHOOK: %s", type(error).__name__)


def alert_failure(context: Context) -> None:
    """`on_failure_callback` of every task: called once no retry is left."""
    instance = context["ti"]
    facts = {"dag": instance.dag_id, "run": context["run_id"], "task": instance.task_id}
    alert("failed", f"{instance.dag_id}: {instance.task_id} failed: {context.get('exception')}", facts)


#: What the tasks of every DAG have in common.
TASK_DEFAULTS = {"owner": "saebyeok", "retries": 2, "on_failure_callback": alert_failure}
