"""Decisions of the promotion gate, as recorded in the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.store.artifacts import Artifact
from pipeline.store.checks import Check, reason_of
from pipeline.store.formats import Record


class Score(BaseModel):
    """A compared model, and its first metric on the rows on which all models were compared."""

    # See `Record`.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    model: Literal["challenger", "champion", "earlier"]
    ref: str = Field(description="of the release; of the trained artifact for the challenger")
    value: float
    held_out: float = Field(description="share of the training texts that the model has not seen")


class Decision(Record):
    """`decision.json` of a decide artifact: whether the trained model may be released, and the checks that decided.

    The reason is worded when the decision is shown. Older versions stored the sentence as `reason`
    (docs/decisions/0026).
    """

    # See `Measured`: a union is written with the settings of the model around it.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    format: int = Field(default=5, description="format of the record")
    promote: bool = Field(description="whether the model may be released")
    champion: str | None = Field(description="ref of the champion that it was compared with")
    best: str | None = Field(description="ref of the best earlier release, if it was compared with that too")
    notes: tuple[str, ...] = Field(description="further remarks for reviewers, one sentence each")
    checks: tuple[Check, ...] = Field(description="the checks that decided, each with its value and its bound")
    scores: tuple[Score, ...] = Field(default=(), description="the compared models, the challenger first")
    stored_reason: str | None = Field(default=None, validation_alias="reason", exclude=True)

    @property
    def is_champion(self) -> bool:
        """Whether the evaluated model is the champion's own, so that there was nothing to compare."""
        return self.champion is not None and all(check.kind != "comparison" for check in self.checks)

    @property
    def needs_person(self) -> bool:
        """Whether the model was refused only because it cannot be compared, so that a person may approve it."""
        failed = [check for check in self.checks if not check.passed]
        return bool(failed) and all(check.waivable for check in failed)

    @property
    def reason(self) -> str:
        """The verdict and the reason for it, as a sentence."""
        return self.stored_reason or reason_of(self.checks, first=self.champion is None)

    @property
    def why(self) -> str:
        """The reason without the verdict at its start, for places that show the verdict separately."""
        text = self.reason.removeprefix("Promoted: ").removeprefix("Refused: ")
        return text[:1].upper() + text[1:]


def read_decision(decided: Artifact) -> Decision:
    """Return the decision of a `decide` artifact. Raises ArtifactError if it is missing or damaged."""
    return decided.read_record("decision.json", Decision)


def decision_lines(decision: Decision) -> Iterator[str]:
    """Yield one line for each check, with its value and bound, and one for each note."""
    for check in decision.checks:
        yield f"{'passed' if check.passed else 'FAILED':<11} {check.name}: {check.value:.4f} against {check.bound:.4f}"
    yield from (f"{'note':<11} {note}" for note in decision.notes)
