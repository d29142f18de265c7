"""Delete artifacts that no rollback, comparison or future run can need, once per day.

Retained, each with all that it was made from: the releases of the newest deployments (`SAEBYEOK_KEEP_DEPLOYMENTS`), the
best earlier release of every recipe, and all artifacts of the last days (`SAEBYEOK_KEEP_DAYS`). Decisions and their
reports are never deleted. A rollback to a deleted release fails with a message that says so.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from wiring import TASK_DEFAULTS, airflow_errors, scheduled, task_settings


@task
@airflow_errors()
def prune() -> int:
    """Delete the outdated artifacts and return their size in bytes."""
    settings = task_settings()
    from pipeline.deployment.retention import delete_outdated, find_outdated
    from pipeline.job import open_store

    store = open_store(settings)
    outdated = find_outdated(store, settings)
    delete_outdated(store, settings, outdated)
    return outdated.size


@dag(
    # At noon, long after the nightly run has ended.
    schedule=scheduled("0 12 * * *"),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["saebyeok"],
    description="Delete artifacts that no rollback, comparison or future run can need",
    default_args={**TASK_DEFAULTS, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=2)},
)
def retention() -> None:
    """Create the task."""
    prune()


retention()
