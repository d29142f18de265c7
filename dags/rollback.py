"""Serve an earlier deployment again.

Trigger this DAG by hand. Without a number it undoes the newest deployment; with a number it serves the releases of that
deployment. The releases are first staged and checked with their golden sentences, and then recorded as a new
deployment: the log only grows, so a rollback can itself be rolled back.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import AssetAlias, Param, dag, get_current_context, task
from pydantic import JsonValue

from pipeline.alerts import alert_deployment
from wiring import TASK_DEFAULTS, airflow_errors, asker, champion_asset, note, task_settings

CHAMPIONS = "saebyeok-rolled-back"


@task(outlets=[AssetAlias(CHAMPIONS)])
@airflow_errors()
def rollback() -> str:
    """Record and serve the chosen deployment, and update the asset of each recipe whose model changed."""
    settings = task_settings()
    context = get_current_context()
    from pipeline.deployment.deployer import rollback
    from pipeline.job import open_store
    from pipeline.store.deployments import DeploymentLog

    store = open_store(settings)
    before = DeploymentLog(store).latest()
    number = context["params"]["deployment"]
    deployment = rollback(settings, store, context["run_id"], number, by=asker(context))
    served = before.releases if before else {}
    for recipe, release in deployment.releases.items():
        if served.get(recipe) != release:
            extra: dict[str, JsonValue] = {"deployment": deployment.number, "release": release}
            context["outlet_events"][AssetAlias(CHAMPIONS)].add(champion_asset(recipe), extra=extra)
    note(f"deployment {deployment.number} is live: {deployment.reason}")
    alert_deployment(deployment, {})
    return f"deployments/{deployment.number:06d}.json"


@dag(
    dag_id="rollback",
    schedule=None,
    # A paused DAG would not start when it is triggered.
    is_paused_upon_creation=False,
    catchup=False,
    max_active_runs=1,
    params={
        "deployment": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Deployment",
            description="Number of the deployment to serve again; `saebyeok releases` lists them. "
            "Default: the one before the newest.",
        )
    },
    doc_md=__doc__,
    tags=["saebyeok"],
    description="Serve an earlier deployment again",
    default_args={**TASK_DEFAULTS, "retry_delay": timedelta(seconds=30), "execution_timeout": timedelta(hours=1)},
)
def rollback_dag() -> None:
    """Create the task."""
    rollback()


rollback_dag()
