"""Approval: when a person is asked, the question, and the effect of each answer; `tests/e2e` has real answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import RefusedError
from pipeline.store.artifacts import Store
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.verdicts import check_verdicts, find_bar, find_verdict, model_of, record_verdict
from tests.dags.conftest import RUN, make_decided
from tests.support.hook import Hook

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk import Context

    from approval import Approval

InTask = Callable[..., "Context"]
ANSWERED = datetime(2026, 11, 29, 9, tzinfo=UTC)
KIM = {"id": "7", "name": "kim"}


@dataclass
class Supervisor:
    """Airflow's side of a running task, for questions: it receives messages."""

    messages: list[Any] = field(default_factory=list)

    def send(self, msg: Any) -> None:
        self.messages.append(msg)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    found = Supervisor()
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", found, raising=False)
    return found


@pytest.fixture
def approve(bag: BundleDagBag) -> Callable[[str], Approval]:
    """Return `approve(ref)`, the task of the nightly DAG for the decision at `ref`."""

    def make(ref: str) -> Approval:
        task: Any = copy.copy(bag.dags["nightly_retrain"].task_dict["nsmc.approve"])
        task.decided = ref
        return task  # type: ignore[no-any-return]

    return make


def event(answer: str, user: dict[str, str] | None = KIM, why: str = "") -> dict[str, Any]:
    """Return the event with which the scheduler resumes the task; without a user if nobody answered in time."""
    return {
        "chosen_options": [answer],
        # The form sends null for an empty field. Airflow's operator expects null for the whole form, too.
        "params_input": {"why": why or None} if user else None,
        "responded_at": ANSWERED,
        "responded_by_user": user,
        "timedout": user is None,
    }


def test_approval_switched_off_asks_nobody(
    approve: Callable[[str], Approval], in_task: InTask, supervisor: Supervisor
) -> None:
    # The task reads nothing from the store either.
    assert approve("decide/nsmc/none/here").execute(in_task()) is None
    assert supervisor.messages == []


def test_nobody_is_asked_about_the_champions_own_model(
    approve: Callable[[str], Approval], in_task: InTask, store: Store, supervisor: Supervisor
) -> None:
    context = in_task(approval=True)
    decided = make_decided(store, champion="release/nsmc/a/b")
    assert approve(decided.ref).execute(context) is None
    assert supervisor.messages == []


def test_person_is_asked_about_the_champions_rejected_model(
    approve: Callable[[str], Approval], in_task: InTask, store: Store, supervisor: Supervisor, hook: Hook
) -> None:
    context, decided = in_task(approval=True), make_decided(store, champion="release/nsmc/a/b")
    record_verdict(model_of(decided), "rejected", by="kim", run="back")
    ask(approve(decided.ref), context)
    assert len(supervisor.messages) == 1
    verdict = find_verdict(model_of(decided))
    assert verdict is not None
    assert verdict.verdict == "asked"


@pytest.mark.parametrize(
    ("champion", "compared"), [(None, False), ("release/nsmc/a/b", True)], ids=["the first model", "a challenger"]
)
def test_person_is_asked_about_a_new_model(
    approve: Callable[[str], Approval],
    in_task: InTask,
    store: Store,
    supervisor: Supervisor,
    hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
    champion: str | None,
    compared: bool,
) -> None:
    from airflow.sdk.exceptions import TaskAwaitingInput

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080")
    context = in_task(approval=True)
    decided = make_decided(store, champion=champion, compared=compared)
    with pytest.raises(TaskAwaitingInput) as waiting:
        approve(decided.ref).execute(context)
    # No answer counts as a rejection.
    assert (waiting.value.method_name, waiting.value.timeout) == ("execute_complete", timedelta(hours=12))
    (question,) = supervisor.messages
    assert question.ti_id == context["ti"].id  # type: ignore[attr-defined]
    assert (question.options, question.defaults, question.multiple) == (["Approve", "Reject"], ["Reject"], False)
    assert question.subject == "nsmc: serve the new model?"
    assert question.params["why"]["schema"]["title"] == "Reason"
    # Otherwise the form requires a reason.
    assert question.params["why"]["schema"]["type"] == ["null", "string"]
    lines = question.body.splitlines()
    assert lines[0].startswith("The model passed its gates: Accuracy on the test file is 0.8571 (threshold 0.84); ")
    against = "- accuracy against the champion (+0.1250), at worst: **0.0000** (at least -0.01)"
    assert lines[2:-2] == [
        "- accuracy on the test file: **0.8571** (at least 0.84)",
        *([against] if compared else []),
        *(["", "There is no champion yet."] if champion is None else []),
    ]
    report = f"http://127.0.0.1:8080/saebyeok/{decided.ref}/report.html"
    assert lines[-1].startswith(f"[Open the report]({report}). Without an answer within 12 hours the model is rejected")


def test_approved_model_goes_on(approve: Callable[[str], Approval], in_task: InTask, store: Store, hook: Hook) -> None:
    context = in_task(approval=True)
    decided = make_decided(store)
    answer = approve(decided.ref).execute_complete(context, event("Approve", why=" good answers\n"))
    assert (answer["chosen_options"], answer["responded_by_user"]) == (["Approve"], KIM)
    verdict = find_verdict(model_of(decided))
    assert verdict is not None
    assert (verdict.verdict, verdict.by, verdict.run, verdict.decided) == ("approved", "kim", RUN, decided.ref)
    assert verdict.why == "good answers"
    noted = context["ti"].pushed  # type: ignore[attr-defined]
    assert noted == {"run_note": f"nsmc: kim approved it in run {RUN} (good answers)"}
    assert find_bar(decided, read_decision(decided)) is None
    assert hook.bodies == []


@pytest.mark.parametrize(
    ("user", "by"), [(KIM, "kim rejected it"), (None, "nobody answered within 12 hours")], ids=["a no", "silence"]
)
def test_rejected_model_is_remembered_told_and_skipped(
    approve: Callable[[str], Approval],
    in_task: InTask,
    store: Store,
    hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
    user: dict[str, str] | None,
    by: str,
) -> None:
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080")
    context = in_task(approval=True)
    decided = make_decided(store)
    task = approve(decided.ref)
    context["task"] = task
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        task.execute_complete(context, event("Reject", user))
    assert list(skipped.value.tasks) == ["nsmc.export"]
    verdict = find_bar(decided, read_decision(decided))
    assert verdict is not None
    assert (verdict.verdict, verdict.run, verdict.by) == ("rejected", RUN, user and user["name"])
    report = f"http://127.0.0.1:8080/saebyeok/{decided.ref}/report.html"
    text = f"nsmc: the new model is not deployed, the current model stays live: {by} in run {RUN}. Report: {report}"
    assert hook.bodies == [{"event": "rejected", "text": text, "recipe": "nsmc", "run": RUN, "report": report}]


def test_question_that_failed_is_no_rejection(
    approve: Callable[[str], Approval], in_task: InTask, store: Store, hook: Hook
) -> None:
    from airflow.providers.standard.exceptions import HITLTimeoutError

    context = in_task(approval=True)
    decided = make_decided(store)
    with pytest.raises(HITLTimeoutError):
        approve(decided.ref).execute_complete(context, {"error": "too late", "error_type": "timeout"})
    assert find_verdict(model_of(decided)) is None
    assert hook.bodies == []


def ask(task: Approval, context: Context) -> None:
    from airflow.sdk.exceptions import TaskAwaitingInput

    context["task"] = task
    with pytest.raises(TaskAwaitingInput):
        task.execute(context)


def test_question_is_recorded_and_told_at_once(
    approve: Callable[[str], Approval],
    in_task: InTask,
    store: Store,
    hook: Hook,
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ml")
    context, decided, before = in_task(approval=True), make_decided(store), datetime.now(UTC)
    context["ti"].task_id = "nsmc.approve"  # type: ignore[misc]
    ask(approve(decided.ref), context)
    # A retry of the task asks again without another alert.
    ask(approve(decided.ref), context)
    verdict = find_verdict(model_of(decided))
    assert verdict is not None
    assert (verdict.verdict, verdict.run, verdict.by, verdict.decided) == ("asked", RUN, None, decided.ref)
    assert verdict.deadline is not None
    assert before + timedelta(hours=12) <= verdict.deadline <= datetime.now(UTC) + timedelta(hours=12)
    link = f"https://airflow.example.org/ml/dags/nightly_retrain/runs/{RUN}/tasks/nsmc.approve/required_actions"
    assert verdict.link == link
    (body,) = hook.bodies
    assert (body["event"], body["recipe"], body["run"], body["link"]) == ("waiting", "nsmc", RUN, link)
    assert body["deadline"] == verdict.deadline.isoformat()
    assert f"waits for approval until {verdict.deadline:%Y-%m-%d %H:%M} UTC" in body["text"]
    assert body["report"] == f"https://airflow.example.org/ml/saebyeok/{decided.ref}/report.html"
    assert body["text"].endswith(f"Answer at {link}; its report is at {body['report']}")


def test_success_without_an_answer_is_no_approval(
    approve: Callable[[str], Approval],
    in_task: InTask,
    store: Store,
    supervisor: Supervisor,
    hook: Hook,
) -> None:
    context, decided = in_task(approval=True), make_decided(store)
    ask(approve(decided.ref), context)
    # Marking the task as successful calls nothing; the following tasks read the verdict.
    bar = find_bar(decided, read_decision(decided))
    assert str(bar) == f"run {RUN} asked for approval, and nobody has approved it yet"
    with pytest.raises(RefusedError, match="nobody has approved it yet, so the model is not deployed"):
        check_verdicts(store, decided, read_decision(decided))


def test_silence_does_not_overrule_a_person(
    approve: Callable[[str], Approval],
    in_task: InTask,
    store: Store,
    supervisor: Supervisor,
    hook: Hook,
) -> None:
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    context, decided = in_task(approval=True), make_decided(store)
    task = approve(decided.ref)
    ask(task, context)
    record_verdict(model_of(decided), "approved", by="lee", run="cli-1")
    with pytest.raises(DownstreamTasksSkipped):
        task.execute_complete(context, event("Reject", None))
    assert find_bar(decided, read_decision(decided)) is None
    assert [body["event"] for body in hook.bodies] == ["waiting"]


def test_decision_is_rendered_before_it_is_read(bag: BundleDagBag) -> None:
    for name in ("nsmc", "klue-sts"):
        task = bag.dags["nightly_retrain"].task_dict[f"{name}.approve"]
        # Otherwise `decided` would still be a placeholder when the task runs.
        assert {"decided", "subject", "body"} <= set(task.template_fields)
        assert task.decided.operator.task_id == f"{name}.decide"


@pytest.mark.parametrize(
    ("champion", "compared", "own"),
    [("release/nsmc/a/b", False, True), ("release/nsmc/a/b", True, False), (None, False, False)],
)
def test_champions_own_model_was_not_compared(store: Store, champion: str | None, compared: bool, own: bool) -> None:
    decision: Decision = read_decision(make_decided(store, champion=champion, compared=compared))
    assert decision.is_champion is own
