"""Use a daily file although it is unusual.

A day that deviates from the days before it is left out. If the deviation is real, such as a lasting change of what
users write, trigger this DAG by hand with the date of the day and the reason. `ask` shows the figures of the day's last
check and waits for an answer (Required Actions of the run). After *Approve*, the next nightly run uses the file, and
later days are usual if they resemble it. *Reject*, or no answer in time, changes nothing.

The decision holds for the content that was shown: a corrected file is checked again.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, dag, get_current_context, task

from approval import HOURS
from pipeline.errors import ConflictError
from pipeline.job import Job, open_job
from wiring import TASK_DEFAULTS, airflow_errors, note, recipe_paths, task_settings

RECIPES = list(recipe_paths())

QUESTION = """Reason given: {{ params.why }}

{{ ti.xcom_pull(task_ids="figures")["text"] }}
"""

ASK = """Show the figures of the day's last check, and wait for a person's answer.

*Reject*, or no answer in time, skips `accept`: the day stays left out.
"""


def chosen_job() -> Job:
    """Return the job of the recipe that was chosen in the form."""
    context = get_current_context()
    return open_job(context["params"]["recipe"], settings=task_settings(), run=context["run_id"])


@task
@airflow_errors()
def figures() -> dict[str, str]:
    """Find the file and return the figures of its last check as `text`, and the digest of its content as `sha256`."""
    from pipeline.data.acceptance import find_day

    day = find_day(chosen_job(), date.fromisoformat(get_current_context()["params"]["date"]))
    return {"sha256": day.file.digest, "text": "\n".join(f"- {line}" for line in [day.file.name, *day.lines])}


@task
@airflow_errors()
def accept(shown: dict[str, str], answer: dict[str, Any]) -> str:
    """Record that the file is to be used; fails if it is not the content that was shown."""
    from pipeline.data.acceptance import accept_day, find_day
    from pipeline.store.acceptances import Acceptance

    params = get_current_context()["params"]
    job = chosen_job()
    day = find_day(job, date.fromisoformat(params["date"]))
    if day.file.digest != shown["sha256"]:
        raise ConflictError(f"{day.file.name} has changed since its figures were shown; trigger the DAG again")
    given = Acceptance(by=answer["responded_by_user"]["name"], why=params["why"])
    ref = accept_day(job, day, given).ref
    note(f"{day.file.name} is used from the next run on, by {given.by}: {given.why}")
    return ref


@dag(
    dag_id="accept_arrival",
    schedule=None,
    # A paused DAG would not start when it is triggered.
    is_paused_upon_creation=False,
    catchup=False,
    max_active_runs=1,
    params={
        "recipe": Param(type="string", enum=RECIPES, title="Recipe", description="Recipe of the file."),
        "date": Param(type="string", format="date", title="Date", description="Date of the daily file."),
        "why": Param(
            type="string", minLength=1, title="Reason", description="Reason, for the record and for the data docs."
        ),
    },
    doc_md=__doc__,
    tags=["saebyeok"],
    description="Use a daily file although it is unusual",
    default_args={**TASK_DEFAULTS, "retry_delay": timedelta(seconds=5), "execution_timeout": timedelta(hours=1)},
)
def accept_arrival() -> None:
    """Create the tasks."""
    shown = figures()
    ask = ApprovalOperator(
        task_id="ask",
        doc_md=ASK,
        subject="Use the arrivals of {{ params.date }} ({{ params.recipe }}) although they are unusual?",
        body=QUESTION,
        defaults=ApprovalOperator.REJECT,
        response_timeout=timedelta(hours=HOURS),
        # A time limit meant for computation would end the wait.
        execution_timeout=None,
    )
    shown >> ask
    accept(shown, ask.output)


accept_arrival()
