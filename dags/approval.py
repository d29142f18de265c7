"""Approval: where a run asks for it, a person decides whether a model that passed its gate goes on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from pipeline.store.decisions import Decision, read_decision, record_rejection
from wiring import ReportLink, alert, artifact_url, task_job, with_host

if TYPE_CHECKING:
    from airflow.sdk import Context

#: How many hours a person has; well before the next night, which waits for this run to end.
HOURS = 12


class Approval(ApprovalOperator):
    """Ask whether the model of the decision at `decided` may be served, where the run's `approval` is on.

    Rejected, or not answered within `HOURS`, what follows is skipped: the run succeeds and the served model stays. A
    later run that comes to the same model does not serve it either, unless it asks again.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "decided")

    def __init__(self, *, recipe: str, decided: Any, **options: Any) -> None:
        """`decided` is the ref of the decision, as `decide` returns it."""
        super().__init__(
            subject=f"{recipe}: serve the new model?",
            defaults=self.REJECT,
            response_timeout=timedelta(hours=HOURS),
            # It is for work, and would end the waiting.
            execution_timeout=None,
            # Airflow 3.3 takes a task for killed that is answered in the second in which its executor lets go of it
            # (see `min_heartbeat_interval` in pipeline/stack/airflow_home.py): who answered is asked again, and soon.
            retry_delay=timedelta(seconds=5),
            retry_exponential_backoff=0,
            **options,
        )
        self.recipe = recipe
        self.decided = decided

    def execute(self, context: Context) -> Any:
        """Ask, unless nobody wants to be asked or there is nothing new to serve."""
        if not context["params"]["approval"]:
            self.log.info("nobody is asked: the gates decide (parameter `approval`)")
            return None
        decision = read_decision(task_job(self.recipe).store.open(self.decided))
        if decision.is_champion:
            self.log.info("nobody is asked: the model is the champion's own")
            return None
        self.body = approval_text(decision, with_host(artifact_url(self.decided, ReportLink.file)))
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on with the answer; a rejection is remembered, and told to who gets alerts."""
        # First, since what follows is skipped by an exception. Without an error there is always an answer.
        if event.get("chosen_options") == [self.REJECT]:
            self._reject(context, event["responded_by_user"])
        return super().execute_complete(context, event)

    def _reject(self, context: Context, user: dict[str, Any] | None) -> None:
        who = f"{user['name']} rejected it" if user else f"nobody answered within {HOURS} hours"
        # Or the next night, which asks nobody, would serve it.
        store = task_job(self.recipe).store
        record_rejection(store, store.open(self.decided), context["run_id"], who)
        text = f"{self.recipe}: the new model is not served, the served one stays: {who}."
        alert("rejected", text, {"recipe": self.recipe, "run": context["run_id"]})


def approval_text(decision: Decision, report: str) -> str:
    """What a person must know to answer, as Markdown; `report` is the report's address."""
    lines = [f"- {check.name}: **{check.value:.4f}** (at least {check.bound:g})" for check in decision.checks]
    return "\n".join(
        [
            f"Its gates would let it pass: {decision.why}",
            "",
            *lines,
            *(["", "There is no champion yet."] if decision.champion is None else []),
            "",
            f"[Open the report]({report}). Without an answer within {HOURS} hours it is rejected, and the served "
            "model stays.",
        ]
    )
