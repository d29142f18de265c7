"""Airflow plugin that writes the outcomes of a run into its note: one line per recipe, when the run ends.

Tasks leave a sentence as an XCom (`note` in dags/wiring.py). The scheduler writes the notes, because only Airflow's own
processes have access to its database. Each task with a sentence gets it as its own note, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun  # noqa: TID251 - the scheduler has the database


class RunNotes:
    """Listener for the end of runs."""

    @hookimpl
    def on_dag_run_success(self, dag_run: DagRun) -> None:
        """Write the notes of a run that succeeded."""
        write_notes(dag_run)

    @hookimpl
    def on_dag_run_failed(self, dag_run: DagRun) -> None:
        """Write the notes of a run that failed."""
        write_notes(dag_run)


def write_notes(dag_run: DagRun) -> None:
    """Write the sentences of the run's tasks into the notes of the tasks and of the run."""
    from airflow.settings import Session
    from airflow.utils.session import create_session

    if Session and (session := Session.object_session(dag_run)):
        # The scheduler's transaction: a second one could not write into SQLite.
        write_into(session, dag_run)
        return
    # `airflow dags test` detaches the run.
    with create_session() as own:
        write_into(own, own.get(type(dag_run), dag_run.id))


def write_into(session: Any, dag_run: Any) -> None:
    """Write the notes by means of the database session that `dag_run` belongs to."""
    from pipeline.run_notes import run_note, shortened

    tasks = {task.task_id: task for task in dag_run.get_task_instances(session=session)}
    failed = {name: f"{name} failed; its log has the reason" for name, task in tasks.items() if task.state == "failed"}
    sentences = dict(sorted((failed | find_sentences(session, dag_run)).items()))
    for name, sentence in sentences.items():
        tasks[name].note = shortened(sentence)
    if sentences:
        dag_run.note = run_note(dag_run.note, sentences.values())


def find_sentences(session: Any, dag_run: DagRun) -> dict[str, str]:
    """Return the sentences that the tasks of a run have left, by task id."""
    from airflow.models.xcom import XComModel  # noqa: TID251 - the scheduler has the database

    from pipeline.run_notes import RUN_NOTE

    query = XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag_run.dag_id, key=RUN_NOTE)
    return {item.task_id: str(XComModel.deserialize_value(item)) for item in session.scalars(query)}


class RunNotesPlugin(AirflowPlugin):
    """Registers the listener with Airflow."""

    name = "saebyeok-run-notes"
    listeners = [RunNotes()]  # noqa: RUF012
