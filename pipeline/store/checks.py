"""Checks of the promotion gate: figures and their bounds as data, and the words in which they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.recipes.kinds.registry import metric_name
from pipeline.store.figures import Estimate

Kind = Literal["floor", "behaviour", "comparison"]
#: An earlier model that the challenger is compared with.
RivalName = Literal["champion", "best"]

RIVALS: dict[RivalName, str] = {"champion": "the champion", "best": "the best before it"}


class Measured(BaseModel):
    """A value, its bound, and whether it reaches it."""

    # Keep NaN in JSON: with null, the decision could not be parsed again.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float
    bound: float
    passed: bool
    estimate: Estimate | None = Field(default=None, description="the measured value with its interval, if it has one")

    @property
    def waivable(self) -> bool:
        """Whether a person may approve the model although it failed."""
        return False


class ThresholdCheck(Measured):
    """The check that a metric on the test file reaches the recipe's threshold."""

    kind: ClassVar[Kind] = "floor"

    check: Literal["threshold"] = "threshold"
    metric: str
    sample: bool = Field(description="whether the test file is the sample's")
    new_texts: bool = Field(default=False, description="whether test rows with a near copy in train are left out")
    unset: bool = Field(default=False, description="whether the recipe has no threshold, so that any value fails")

    @property
    def name(self) -> str:
        """Return what is measured; it names the sample, because log, alert and deployment log quote it."""
        file = "the sample's test file" if self.sample else "the test file"
        return f"{metric_name(self.metric)} on {'new texts of ' if self.new_texts else ''}{file}"

    @property
    def miss(self) -> str | None:
        """Return the value and what to do if the recipe has no threshold."""
        if not self.unset:
            return None
        return (
            f"{self.name} is {self.value:.4f}, and the recipe has no threshold for it (gate.floors.{self.metric}); "
            "`saebyeok propose-floors` derives one from several trainings"
        )


class BehaviourCheck(Measured):
    """The check that the share of passed behavioural cases of a capability reaches the recipe's threshold."""

    kind: ClassVar[Kind] = "behaviour"
    miss: ClassVar[None] = None

    check: Literal["behaviour"] = "behaviour"
    capability: str

    @property
    def name(self) -> str:
        """Return what is measured."""
        return f"share of correct {self.capability} cases"


class ComparisonCheck(Measured):
    """The check that the model is not worse than an earlier one by more than the margin, on the gate rows.

    `value` is the lower end of the interval of the difference, `bound` is minus the margin.
    """

    kind: ClassVar[Kind] = "comparison"

    check: Literal["comparison"] = "comparison"
    estimate: Estimate
    metric: str
    rival: RivalName
    rows: int = Field(description="gate rows that the training of every compared model held out")
    fewest: int = Field(description="fewest such rows that allow a comparison")
    gate_rows: int | None = Field(default=None, description="all gate rows; None in decisions of older versions")

    @property
    def name(self) -> str:
        """Return what is measured, with the difference itself."""
        told = "" if math.isnan(self.value) else f" ({self.estimate.value:+.4f}), at worst"
        return f"{metric_name(self.metric)} against {RIVALS[self.rival]}{told}"

    @property
    def waivable(self) -> bool:
        """Return whether too few rows may be the only reason why it failed, which a person may then judge."""
        worse = self.estimate.high < self.bound
        return not self.passed and self.rows < self.fewest and not worse

    @property
    def miss(self) -> str | None:
        """Return why it failed if there are too few rows, as part of a sentence."""
        if not self.waivable:
            return None
        found = f"there are only {self.rows:,} gate rows"
        if self.gate_rows is not None and self.gate_rows > self.rows:
            found = (
                f"only {self.rows:,} of {self.gate_rows:,} gate rows were held out of training for every compared model"
            )
        return (
            f"{found}, and the comparison needs {self.fewest:,}; a person must approve the model (a larger "
            "data.gate_share gives more rows to later models)"
        )


class SampleCheck(Measured):
    """The check that a model trained on the sample does not replace a champion trained on real data."""

    kind: ClassVar[Kind] = "comparison"
    name: ClassVar[str] = "share of real data in training"
    miss: ClassVar[str] = "it was trained on the shipped sample, and the champion on real data"

    check: Literal["sample"] = "sample"


class AgeCheck(Measured):
    """The check that a model's newest data are not older than the champion's; `value` is the difference in days."""

    kind: ClassVar[Kind] = "comparison"
    name: ClassVar[str] = "days of data ahead of the champion's"

    check: Literal["age"] = "age"
    newest: date | None = Field(description="date of the newest arrival in train")
    champions: date = Field(description="the same of the champion")

    @property
    def miss(self) -> str:
        """Return both dates, as part of a sentence."""
        known = f"its newest data are of {self.newest}" if self.newest else "no data that arrived is in it"
        return f"{known}, and the champion knows those of {self.champions}"


class EarlierModelCheck(Measured):
    """The check that a model does not replace a champion that was trained later on the same data."""

    kind: ClassVar[Kind] = "comparison"
    name: ClassVar[str] = "trained after the champion"

    check: Literal["earlier model"] = "earlier model"
    trained: str = Field(description="ref of the model")

    @property
    def miss(self) -> str:
        """Return what it is and how to serve it, as part of a sentence."""
        return (
            f"it was trained before the champion on the same data ({self.trained}); to serve it again, roll back to "
            "its deployment (saebyeok rollback)"
        )


class TaskCheck(Measured):
    """The check that the champion, or an earlier release, has the same task and labels, so that it can be compared."""

    kind: ClassVar[Kind] = "comparison"

    check: Literal["task"] = "task"
    task: str = Field(description="of the model: its task, or its labels if the task is the same")
    champions: str = Field(description="the same of the champion, or of `rival`")
    rival: RivalName = "champion"

    @property
    def name(self) -> str:
        """Return what is compared."""
        return f"same task as {self._whom}"

    @property
    def _whom(self) -> str:
        return "the champion" if self.rival == "champion" else "an earlier release"

    @property
    def waivable(self) -> bool:
        """Return True: a person can tell whether the new task is meant."""
        return True

    @property
    def miss(self) -> str:
        """Return both tasks and what to do, as part of a sentence."""
        return (
            f"{self._whom} knows another task ({self.champions}) than this model ({self.task}), so they cannot be "
            "compared; set `renamed_labels` in the recipe if labels were only renamed, otherwise a person must approve "
            "the model"
        )


class WordedCheck(BaseModel):
    """A check that was stored with its words, by a version before decision 26."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    kind: Kind
    name: str
    value: float
    bound: float
    passed: bool
    estimate: Estimate | None = None
    miss: str | None = None
    waivable: bool = False


#: Checks that are stored as data.
MeasuredCheck = (
    ThresholdCheck | BehaviourCheck | ComparisonCheck | SampleCheck | AgeCheck | EarlierModelCheck | TaskCheck
)
Check = Annotated[MeasuredCheck, Field(discriminator="check")] | WordedCheck


def check_document(check: Check) -> dict[str, Any]:
    """Return the check with its words, for `--json`."""
    estimate = check.estimate.model_dump() if check.estimate else None
    return {
        "kind": check.kind,
        "name": check.name,
        "value": check.value,
        "bound": check.bound,
        "passed": check.passed,
        "estimate": estimate,
        "miss": check.miss,
        "waivable": check.waivable,
    }


def reason_of(checks: Sequence[Check], *, first: bool) -> str:
    """Return the verdict of `checks` and the reason for it as a sentence; `first`: there was no champion."""
    failed = [check for check in checks if not check.passed]
    if failed:
        return f"Refused: {'; '.join(dict.fromkeys(_miss(check) for check in failed))}."
    parts = [
        ", ".join(f"{check.name} is {check.value:.4f} (threshold {check.bound:g})" for check in _of(checks, "floor")),
    ]
    if behaviour := _of(checks, "behaviour"):
        parts.append(f"all {len(behaviour)} behavioural bounds are met")
    compared = _of(checks, "comparison")
    parts += [_difference(check) for check in compared]
    if first:
        parts.append("there is no champion yet")
    elif not compared:
        parts.append("it is the champion's own model")
    return f"Promoted: {'; '.join(parts)}."


def _of(checks: Sequence[Check], kind: Kind) -> list[Check]:
    return [check for check in checks if check.kind == kind]


def _miss(check: Check) -> str:
    if check.miss:
        return check.miss
    if math.isnan(check.value):
        return (
            f"{check.name} has no value, for example because all answers are equal (at least {check.bound:g} is needed)"
        )
    if check.kind == "comparison":
        return _difference(check)
    return f"{check.name} is {check.value:.4f}, below {check.bound:g}"


def _difference(check: Check) -> str:
    return f"{check.name} {check.value:+.4f} (margin {-check.bound:g})"
