"""Stop the promotions of a recipe, or resume them.

Trigger this DAG by hand. While a recipe is on hold, its runs train, evaluate and decide, and no new model goes live. A
rollback works as usual. `saebyeok hold` and `saebyeok release` do the same from the command line.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from wiring import TASK_DEFAULTS, airflow_errors, asker, note, recipe_paths, task_settings

HOLD, RELEASE = "hold", "release"
RECIPES = list(recipe_paths())


@task
@airflow_errors()
def hold() -> str:
    """Record the hold or its end, and return it as a sentence."""
    settings = task_settings()
    context = get_current_context()
    from pipeline.job import open_store
    from pipeline.store.verdicts import change_hold

    params = context["params"]
    held = params["action"] == HOLD
    record = change_hold(open_store(settings), params["recipe"], held=held, by=asker(context), why=params["why"])
    note(str(record))
    return str(record)


@dag(
    dag_id="hold",
    schedule=None,
    # A paused DAG would not start when it is triggered.
    is_paused_upon_creation=False,
    catchup=False,
    max_active_runs=1,
    params={
        "recipe": Param(
            RECIPES[0],
            type="string",
            enum=RECIPES,
            title="Recipe",
            description="Recipe whose promotions stop or resume.",
        ),
        "action": Param(
            HOLD,
            type="string",
            enum=[HOLD, RELEASE],
            title="Action",
            description="hold: no new model goes live. release: promotions resume.",
        ),
        "why": Param(
            "",
            type="string",
            title="Why",
            description="Reason; runs that are stopped show it. Default: none.",
        ),
    },
    doc_md=__doc__,
    tags=["saebyeok"],
    description="Stop or resume the promotions of a recipe",
    default_args={**TASK_DEFAULTS, "retry_delay": timedelta(seconds=30), "execution_timeout": timedelta(minutes=10)},
)
def hold_dag() -> None:
    """Create the task."""
    hold()


hold_dag()
