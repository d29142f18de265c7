"""Decisions of the promotion gate, as recorded in the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.store.artifacts import Artifact
from pipeline.store.formats import Record


class Estimate(BaseModel):
    """A figure with its 95% interval; for a difference 90%, whose lower end is compared with the margin."""

    # See `Check`.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float
    low: float
    high: float


class Check(BaseModel):
    """One figure compared with its bound."""

    # Keep NaN in JSON: with null, the decision could not be parsed again.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    kind: Literal["floor", "behaviour", "comparison"]
    name: str
    value: float
    bound: float
    passed: bool
    estimate: Estimate | None = Field(default=None, description="the measured value with its interval, if it has one")
    miss: str | None = Field(default=None, description="why it failed, if value and bound do not explain it")
    waivable: bool = Field(default=False, description="whether a person may approve the model although it failed")


class Decision(Record):
    """`decision.json` of a decide artifact: whether the trained model may be released, and why."""

    format: int = 2
    promote: bool
    reason: str = Field(description="one sentence")
    champion: str | None = Field(description="ref of the champion that it was compared with")
    best: str | None = Field(description="ref of the best earlier release, if it was compared with that too")
    notes: tuple[str, ...] = Field(description="further remarks for reviewers, one sentence each")
    checks: tuple[Check, ...]

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
