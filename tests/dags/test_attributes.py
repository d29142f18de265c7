"""The attributes of the DAGs and tasks as Airflow parses them, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.recipes.loading import recipe_names

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk import DAG
    from airflow.sdk.types import Operator

DAGS = ("accept_arrival", "hold", "nightly_retrain", "retention", "rollback")
#: Attributes of every DAG: value and reason.
EVERY_DAG = {
    "catchup": (False, "runs missed while the DAG was paused are not caught up"),
    "start_date": (None, "with one, unpausing would immediately run the last missed interval"),
    "end_date": (None, "the schedule never ends"),
    "dagrun_timeout": (None, "the tasks have time limits; an approval may take half a day"),
    "max_consecutive_failed_dag_runs": (0, "a week without data must not pause the DAG"),
    "fail_fast": (False, "recipes run and fail independently of each other"),
    "tags": ({"saebyeok"}, "the tag finds them among other DAGs"),
}
#: Attributes of every task.
EVERY_TASK = {
    "owner": ("saebyeok", "shown in the list of DAGs"),
    "retries": (2, "a store, hub or service that is briefly unreachable is not a failure"),
    "trigger_rule": ("all_success", "nothing runs after a failed or skipped stage"),
    "depends_on_past": (False, "a failed run does not stop later runs"),
    "wait_for_downstream": (False, "likewise"),
    "do_xcom_push": (True, "the ref of the artifact is passed on and linked"),
    "pool_slots": (1, "one GPU per task"),
}
#: Whether a new DAG is paused. Only a schedule is switched on by a person or the first `saebyeok up`.
NEW_ONES_PAUSED = {
    "accept_arrival": False,
    "hold": False,
    "nightly_retrain": None,
    "retention": None,
    "rollback": False,
}
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
#: Active runs by DAG: concurrent ones would deploy or delete at the same time; nights must not wait for approvals.
ACTIVE_RUNS = {"accept_arrival": 1, "hold": 1, "nightly_retrain": 16, "retention": 1, "rollback": 1}
#: By task, else by DAG: delay before a retry, factor for the next delay, time limit.
TIMES = {
    "approve": (timedelta(seconds=5), 0, None),
    "hold": (MINUTE / 2, 0, 10 * MINUTE),
    "ask": (timedelta(seconds=5), 0, None),
    "accept_arrival": (timedelta(seconds=5), 0, HOUR),
    "nightly_retrain": (MINUTE, 5, 12 * HOUR),
    "retention": (5 * MINUTE, 0, 2 * HOUR),
    "rollback": (MINUTE / 2, 0, HOUR),
}


def tasks_of(bag: BundleDagBag) -> Iterator[tuple[DAG, str, Operator]]:
    """Yield every task, with its DAG and its stage (its name without the recipe's)."""
    for dag in bag.dags.values():
        for task in dag.tasks:
            yield dag, task.task_id.rsplit(".", 1)[-1], task


@pytest.mark.parametrize("name", DAGS)
@pytest.mark.parametrize("attribute", EVERY_DAG)
def test_every_dag_has_the_attribute(bag: BundleDagBag, name: str, attribute: str) -> None:
    value, why = EVERY_DAG[attribute]
    assert getattr(bag.dags[name], attribute) == value, why


@pytest.mark.parametrize("name", DAGS)
def test_only_new_schedules_are_paused(bag: BundleDagBag, name: str) -> None:
    assert bag.dags[name].is_paused_upon_creation is NEW_ONES_PAUSED[name]


@pytest.mark.parametrize("name", DAGS)
def test_active_runs_do_not_get_in_each_others_way(bag: BundleDagBag, name: str) -> None:
    dag = bag.dags[name]
    assert dag.max_active_runs == ACTIVE_RUNS[name]
    if dag.max_active_runs > 1:
        # Two runs never do the same stage of a recipe at the same time; each waits for its own answer.
        limits = {task.task_id: task.max_active_tis_per_dag for task in dag.tasks}
        assert limits == {name: None if name.endswith(".approve") else 1 for name in limits}


@pytest.mark.parametrize("attribute", EVERY_TASK)
def test_every_task_has_the_attribute(bag: BundleDagBag, attribute: str) -> None:
    value, why = EVERY_TASK[attribute]
    assert {task.task_id: getattr(task, attribute) for _, _, task in tasks_of(bag)} == {
        task.task_id: value for _, _, task in tasks_of(bag)
    }, why


def test_retries_and_limits_of_time(bag: BundleDagBag) -> None:
    for dag, stage, task in tasks_of(bag):
        times = task.retry_delay, task.retry_exponential_backoff, task.execution_timeout
        assert times == TIMES.get(stage, TIMES[dag.dag_id]), task.task_id


def test_whoever_gets_alerts_is_told_of_every_failure(bag: BundleDagBag, wiring: ModuleType) -> None:
    for _, _, task in tasks_of(bag):
        assert list(task.on_failure_callback) == [wiring.alert_failure]  # type: ignore[arg-type]
        # Neither a retry nor a skip is a failure.
        assert not task.on_retry_callback
        assert not task.on_skipped_callback


def test_only_what_wants_a_gpu_waits_for_one(bag: BundleDagBag) -> None:
    for _, stage, task in tasks_of(bag):
        wanted = ("gpu", "gpu") if stage in ("train", "evaluate", "export") else ("default", "default_pool")
        assert (task.queue, task.pool) == wanted, task.task_id


def test_each_is_described(bag: BundleDagBag) -> None:
    for name, dag in bag.dags.items():
        assert dag.description
        assert len(dag.doc_md or "") > 200, name
    for dag, _, task in tasks_of(bag):
        assert len(task.doc_md or "") > 50, f"{dag.dag_id}.{task.task_id}"


def test_links_and_assets_are_where_the_docs_say(bag: BundleDagBag) -> None:
    links = {task.task_id: [link.name for link in task.operator_extra_links] for _, _, task in tasks_of(bag)}
    outlets = {
        task.task_id: [getattr(outlet, "uri", outlet.name) for outlet in task.outlets] for _, _, task in tasks_of(bag)
    }
    wanted: dict[str, list[str]] = {}
    assets = {"rollback": ["saebyeok-rolled-back"]}
    for name in recipe_names():
        wanted |= {f"{name}.validate": ["Data docs"], f"{name}.decide": ["Report"], f"{name}.export": ["Report"]}
        assets |= {f"{name}.deploy": [f"saebyeok://champion/{name}"]}
    assert {task: names for task, names in links.items() if names} == wanted
    assert {task: names for task, names in outlets.items() if names} == assets


#: Tasks that may skip the following ones; whether regardless of their trigger rules.
SKIPS = {"gate": True, "approve": False, "ask": False}


def test_a_refusal_skips_all_that_follows(bag: BundleDagBag) -> None:
    for _, stage, task in tasks_of(bag):
        # With False, a task behind the next one would decide by its own trigger rule whether it runs.
        assert getattr(task, "ignore_downstream_trigger_rules", None) is SKIPS.get(stage)


@pytest.mark.parametrize(
    ("name", "now", "first"),
    [
        # Nine hours later in Seoul.
        ("nightly_retrain", "2026-11-21T17:59", "2026-11-21T18:00"),
        # A recently missed interval is not run when the DAG is unpaused.
        ("nightly_retrain", "2026-11-21T18:01", "2026-11-22T18:00"),
        ("nightly_retrain", "2026-11-21T20:00", "2026-11-22T18:00"),
        ("retention", "2026-11-21T02:59", "2026-11-21T03:00"),
        ("retention", "2026-11-21T03:01", "2026-11-22T03:00"),
    ],
)
def test_schedule_is_one_run_per_day_in_seoul(
    bag: BundleDagBag, monkeypatch: pytest.MonkeyPatch, name: str, now: str, first: str
) -> None:
    from airflow.timetables import trigger
    from airflow.timetables.base import DataInterval

    monkeypatch.setattr(trigger, "utcnow", lambda: datetime.fromisoformat(f"{now}:00+00:00"))
    moment = datetime.fromisoformat(f"{first}:00+00:00")
    for day in range(3):
        last = DataInterval.exact(moment - timedelta(days=1)) if day else None  # type: ignore[arg-type]
        assert next_run(bag.dags[name], last) == moment.astimezone(UTC)
        moment += timedelta(days=1)


@pytest.mark.parametrize("name", ["accept_arrival", "hold", "rollback"])
def test_what_a_person_decides_is_never_run_by_a_clock(bag: BundleDagBag, name: str) -> None:
    assert next_run(bag.dags[name], None) is None


def next_run(dag: DAG, last: Any) -> datetime | None:
    """Return when the scheduler, which reads the serialized DAG, runs it after the run `last`."""
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable
    from airflow.timetables.base import TimeRestriction

    restriction = TimeRestriction(earliest=None, latest=None, catchup=dag.catchup)
    timetable = decode_timetable(encode_timetable(dag.timetable))
    found = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
    return found.run_after if found else None
