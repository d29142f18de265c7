"""Approval: if the run asks for it, a person decides whether a model that passed its gate is deployed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from pipeline.store.decisions import Decision, read_decision, record_rejection
from wiring import ReportLink, alert, artifact_url, task_job, with_host

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Hours within which a person must answer: well before the next nightly run, which waits for this run to end.
HOURS = 12


class Approval(ApprovalOperator):
    """Ask a person whether the model of the decision at `decided` may be served, if the run's `approval` is on.

    After a rejection, or without an answer within `HOURS`, the following tasks are skipped: the run succeeds and the
    current model stays live. A later run does not deploy a rejected model either, unless it asks again.
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
            # If the answer comes in the second in which the executor releases the task, Airflow 3.3 regards the task
            # as killed (see `min_heartbeat_interval` in pipeline/stack/airflow_home.py). Ask again soon.
            retry_delay=timedelta(seconds=5),
            retry_exponential_backoff=0,
            **options,
        )
        self.recipe = recipe
        self.decided = decided

    def execute(self, context: Context) -> Any:
        """Ask for approval, unless the run's `approval` is off or the model is the champion already."""
        if not context["params"]["approval"]:
            self.log.info("no approval needed: parameter `approval` is off, so the gates decide")
            return None
        decision = read_decision(task_job(self.recipe).store.open(self.decided))
        if decision.is_champion:
            self.log.info("no approval needed: the model is the champion already")
            return None
        self.body = approval_text(decision, with_host(artifact_url(self.decided, ReportLink.file)))
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Continue with the answer; record a rejection and send an alert about it."""
        # Record it first, because the parent class skips the following tasks by raising an exception. An event
        # without an error always has an answer.
        if event.get("chosen_options") == [self.REJECT]:
            self._reject(context, event["responded_by_user"])
        return super().execute_complete(context, event)

    def _reject(self, context: Context, user: dict[str, Any] | None) -> None:
        who = f"{user['name']} rejected it" if user else f"nobody answered within {HOURS} hours"
        # Otherwise the next nightly run, which does not ask, would deploy the model.
        store = task_job(self.recipe).store
        record_rejection(store, store.open(self.decided), context["run_id"], who)
        text = f"{self.recipe}: the new model is not deployed, the current model stays live: {who}."
        alert("rejected", text, {"recipe": self.recipe, "run": context["run_id"]})


def approval_text(decision: Decision, report: str) -> str:
    """Return the facts that a person needs for the answer, as Markdown; `report` is the URL of the report."""
    lines = [f"- {check.name}: **{check.value:.4f}** (at least {check.bound:g})" for check in decision.checks]
    return "\n".join(
        [
            f"The model passed its gates: {decision.why}",
            "",
            *lines,
            *(["", "There is no champion yet."] if decision.champion is None else []),
            "",
            f"[Open the report]({report}). Without an answer within {HOURS} hours the model is rejected, and the "
            "current model stays live.",
        ]
    )
