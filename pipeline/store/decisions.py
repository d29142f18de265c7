"""Decisions of the promotion gate and rejections by a person, as the store records them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import ArtifactError
from pipeline.store.artifacts import Artifact, Store

#: Kind of the artifact that says that a person said no.
REJECTION = "rejection"


class Estimate(BaseModel):
    """A figure with its interval: 95%, of a difference 90% (whose lower end is what a margin is held against)."""

    # See `Check`.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float
    low: float
    high: float


class Check(BaseModel):
    """One figure held against its bound."""

    # A value that is not a number stays one: as null the decision could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    kind: Literal["floor", "behaviour", "comparison"]
    name: str
    value: float
    bound: float
    passed: bool
    estimate: Estimate | None = Field(default=None, description="what was measured, where that has an interval")
    miss: str | None = Field(default=None, description="why it failed, where a figure below a bound does not say it")


class Decision(BaseModel):
    """`decision.json` of a decide artifact: whether the trained model may be released, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promote: bool
    reason: str = Field(description="one sentence")
    champion: str | None = Field(description="ref of the release that it was compared with")
    best: str | None = Field(description="ref of the best release before the champion, which it was compared with too")
    notes: tuple[str, ...] = Field(description="what else a person should know, a sentence each")
    checks: tuple[Check, ...]

    @property
    def is_champion(self) -> bool:
        """Whether the model that was judged is the champion's own, so that there was nothing to compare."""
        return self.champion is not None and all(check.kind != "comparison" for check in self.checks)

    @property
    def why(self) -> str:
        """The reason without its first word, for where the verdict itself stands above it."""
        text = self.reason.removeprefix("Promoted: ").removeprefix("Refused: ")
        return text[:1].upper() + text[1:]


def read_decision(decided: Artifact) -> Decision:
    """The decision of a `decide` artifact. Raises ArtifactError where it is missing or damaged."""
    try:
        return Decision.model_validate(decided.read_json("decision.json"))
    except (FileNotFoundError, ValueError) as error:
        raise ArtifactError(f"{decided.uri}: decision.json is missing or damaged ({error})") from error


def record_rejection(store: Store, decided: Artifact, run: str, by: str) -> Artifact:
    """Remember that a person, or nobody in time, said no in `run` to the model of a decision; `by` says who."""
    with store.draft() as draft:
        return store.publish(
            draft,
            REJECTION,
            decided.manifest.recipe,
            decided.key,
            run=run,
            inputs={"decided": {"ref": decided.ref, "key": decided.key}},
            fields={},
            figures={"by": by},
        )


def find_rejection(store: Store, decided: Artifact, decision: Decision) -> Artifact | None:
    """The newest rejection (its figure `by` is a sentence) of the model that `decision` would promote, if there is one.

    None of the champion's own model: it is served already.
    """
    if not decision.promote or decision.is_champion:
        return None
    return store.find(REJECTION, decided.manifest.recipe, decided.key, {"decided": decided})


def decision_lines(decision: Decision) -> Iterator[str]:
    """Each gate with what it held against what, and what else a person should know."""
    for check in decision.checks:
        yield f"{'passed' if check.passed else 'FAILED':<11} {check.name}: {check.value:.4f} against {check.bound:.4f}"
    yield from (f"{'note':<11} {note}" for note in decision.notes)
