"""Approval: if the run asks for it, a person decides whether a model that passed its gate is deployed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param

from pipeline.alerts import alert
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.verdicts import find_bar, find_verdict, model_of, record_silence, record_verdict
from wiring import note, report_url, required_actions_url, task_job, with_host

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Hours within which a person must answer. Other runs do not wait for the answer.
HOURS = 12
#: Field of the answer's form for the person's words. Airflow accepts `params` only when a task is created.
WHY = "why"
ANSWER_PARAMS = {
    WHY: Param(
        None,
        # The form requires an answer to a field that may not be null.
        type=["null", "string"],
        title="Reason",
        description="Reason, recorded with the answer. Default: none.",
    )
}


class Approval(ApprovalOperator):
    """Ask a person whether the model of the decision at `decided` may be served, if the run's `approval` is on.

    The question and the answer are recorded as verdicts about the model. After a rejection, or without an answer within
    `HOURS`, the following tasks are skipped: the run succeeds and the current model stays live. Until a person approves
    the model, no other run deploys it either.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "decided")

    def __init__(self, *, recipe: str, decided: Any, **options: Any) -> None:
        """Create the task; `decided` is the ref of the decision that `decide` returns."""
        super().__init__(
            subject=f"{recipe}: serve the new model?",
            defaults=self.REJECT,
            response_timeout=timedelta(hours=HOURS),
            # A time limit meant for computation would end the wait.
            execution_timeout=None,
            # Each run has its own question.
            max_active_tis_per_dag=None,
            # If the answer comes in the second in which the executor releases the task, Airflow 3.3 regards the task
            # as killed (see `min_heartbeat_interval` in pipeline/stack/airflow_home.py). Ask again soon.
            retry_delay=timedelta(seconds=5),
            retry_exponential_backoff=0,
            **options,
        )
        self.recipe = recipe
        self.decided = decided

    def execute(self, context: Context) -> Any:
        """Ask for approval, unless the run's `approval` is off, or the model is the champion's own and not barred."""
        if not context["params"]["approval"]:
            self.log.info("no approval needed: parameter `approval` is off, so the gates decide")
            return None
        decided = task_job(self.recipe).store.open(self.decided)
        decision = read_decision(decided)
        if decision.is_champion and find_bar(decided, decision) is None:
            self.log.info("no approval needed: the model is the champion already")
            return None
        report = report_url(self.decided)
        self.body = approval_text(decision, report)
        self._record_question(context, report)
        return super().execute(context)

    def _record_question(self, context: Context, report: str) -> None:
        """Record the question of this run and send an alert with a link for the answer, unless an earlier try did."""
        store, run = task_job(self.recipe).store, context["run_id"]
        model = model_of(store.open(self.decided))
        known = find_verdict(model)
        if known and (known.verdict, known.run) == ("asked", run):
            return
        link = with_host(required_actions_url(context["ti"]))
        deadline = datetime.now(UTC) + timedelta(hours=HOURS)
        details = {"decided": self.decided, "deadline": deadline, "link": link}
        record_verdict(model, "asked", by=None, run=run, **details)
        text = (
            f"{self.recipe}: a new model waits for approval until {deadline:%Y-%m-%d %H:%M} UTC. Answer at {link}; "
            f"its report is at {report}"
        )
        facts = {"recipe": self.recipe, "run": run, "link": link, "deadline": deadline.isoformat(), "report": report}
        alert("waiting", text, facts)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Record the answer, send an alert about a rejection, and continue."""
        # Record it first, because the parent class skips the following tasks by raising an exception. An event
        # without an error always has an answer. Without a record `deploy` refuses the model: marking this task as
        # successful is no approval.
        if answer := event.get("chosen_options"):
            why = str((event["params_input"] or {}).get(WHY) or "").strip()
            self._record_answer(context, event["responded_by_user"], why, approved=answer == [self.APPROVE])
        return super().execute_complete(context, event)

    def _record_answer(self, context: Context, user: dict[str, Any] | None, why: str, *, approved: bool) -> None:
        store, run = task_job(self.recipe).store, context["run_id"]
        model = model_of(store.open(self.decided))
        if user:
            answer: Literal["approved", "rejected"] = "approved" if approved else "rejected"
            verdict = record_verdict(model, answer, by=user["name"], run=run, decided=self.decided, why=why)
        else:
            verdict = record_silence(model, run, f"nobody answered within {HOURS} hours", self.decided)
        note(f"{self.recipe}: {verdict}")
        if verdict.bars:
            report = report_url(self.decided)
            text = f"{self.recipe}: the new model is not deployed, the current model stays live: {verdict}."
            facts = {"recipe": self.recipe, "run": run, "report": report}
            alert("rejected", f"{text} Report: {report}", facts)


def approval_text(decision: Decision, report: str) -> str:
    """Return the facts that a person needs for the answer, as Markdown; `report` is the URL of the report."""
    lines = [f"- {check.name}: **{check.value:.4f}** (at least {check.bound:g})" for check in decision.checks]
    return "\n".join(
        [
            f"The model {'passed' if decision.promote else 'did not pass'} its gates: {decision.why}",
            "",
            *lines,
            *(["", "There is no champion yet."] if decision.champion is None else []),
            "",
            f"[Open the report]({report}). Without an answer within {HOURS} hours the model is rejected, and the "
            "current model stays live.",
        ]
    )
