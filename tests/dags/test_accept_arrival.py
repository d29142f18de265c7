"""The DAG `accept_arrival`: the figures that a person sees, and the record of the answer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.store.acceptances import Acceptance, find_acceptances
from pipeline.store.artifacts import Store
from tests.support.daily import day_of, reviews_of, write_day
from tests.support.published import reviews, write_reviews

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk import Context

pytestmark = pytest.mark.airflow

InTask = Callable[..., "Context"]
CHOSEN = {"recipe": "nsmc", "date": str(day_of(0)), "why": "a campaign began"}
ANSWER = {"chosen_options": ["Approve"], "responded_by_user": {"id": "7", "name": "kim"}}


@pytest.fixture
def acceptance(airflow_home: Path) -> ModuleType:
    return importlib.import_module("accept_arrival")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data directory with one daily file."""
    write_reviews(tmp_path / "data", reviews(60, 1), reviews(60, 5000))
    write_day(tmp_path / "data", 0, reviews_of(0))
    monkeypatch.setenv("SAEBYEOK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_answer_is_recorded_for_the_file_that_was_shown(
    acceptance: ModuleType, in_task: InTask, store: Store, data: Path
) -> None:
    in_task(**CHOSEN)
    shown = acceptance.figures.function()
    assert shown["text"] == f"- nsmc/daily/{day_of(0)}.txt\n- nsmc/daily/{day_of(0)}.txt has not been checked yet"
    assert acceptance.accept.function(shown, ANSWER) == store.refs("acceptance", "nsmc")[0]
    given = Acceptance(by="kim", why="a campaign began")
    assert find_acceptances(store, "nsmc", {str(day_of(0)): shown["sha256"]}) == {str(day_of(0)): given}


def test_file_that_changed_after_the_question_is_not_accepted(
    acceptance: ModuleType, in_task: InTask, store: Store, data: Path
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    in_task(**CHOSEN)
    shown = acceptance.figures.function()
    write_day(data, 0, reviews_of(1))
    with pytest.raises(AirflowFailException, match="has changed since its figures were shown"):
        acceptance.accept.function(shown, ANSWER)
    assert store.refs("acceptance", "nsmc") == []


def test_question_shows_figures_and_reason_and_silence_rejects(bag: BundleDagBag) -> None:
    dag = bag.dags["accept_arrival"]
    ask: Any = dag.task_dict["ask"]
    assert {"subject", "body"} <= set(ask.template_fields)
    instance = type("Instance", (), {"xcom_pull": lambda _, task_ids: {"text": f"- of {task_ids}"}})()
    context = {"params": CHOSEN, "ti": instance}
    assert ask.render_template(ask.body, context).split("\n") == [
        "Reason given: a campaign began",
        "",
        "- of figures",
    ]
    assert (ask.defaults, ask.upstream_task_ids, ask.downstream_task_ids) == (["Reject"], {"figures"}, {"accept"})


@pytest.mark.parametrize(
    ("name", "bad"), [("recipe", "imdb"), ("date", "3 November"), ("date", None), ("why", ""), ("why", None)]
)
def test_form_refuses_what_nobody_can_mean(bag: BundleDagBag, name: str, bad: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    param = bag.dags["accept_arrival"].params.get_param(name)
    assert param.resolve(CHOSEN[name]) == CHOSEN[name]
    with pytest.raises(ParamValidationError):
        param.resolve(bad)
