"""Delete by day what no rollback and no night to come can need.

Kept, each with all that it was made from: the releases of the newest deployments (`SAEBYEOK_KEEP_DEPLOYMENTS`), of
every recipe the best release before them, and whatever the last days made (`SAEBYEOK_KEEP_DAYS`). Decisions and their
reports stay for good. What was deleted is remembered: a rollback to it says so.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from wiring import TASK_DEFAULTS, airflow_errors, daily, task_settings


@task
@airflow_errors()
def prune() -> int:
    """Delete what is outdated; returns the bytes that it took."""
    settings = task_settings()
    from pipeline.deployment.retention import delete_outdated, find_outdated
    from pipeline.job import open_store

    store = open_store(settings)
    outdated = find_outdated(store, settings)
    delete_outdated(store, settings, outdated)
    return outdated.size


@dag(
    # At noon, when the night's run has long ended.
    schedule=daily("12:00"),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["saebyeok"],
    description="Delete what no rollback and no night to come can need",
    default_args={**TASK_DEFAULTS, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=2)},
)
def retention() -> None:
    """One task."""
    prune()


retention()
