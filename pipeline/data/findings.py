"""Findings: the result of each rule of a suite on one file, for the gate's other modules and the data docs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.data.reading import Split


class RuleFinding(BaseModel):
    """The result of one expectation on one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Split
    expectation: str
    columns: list[str]
    rule: str
    reason: str
    severity: Literal["critical", "warning", "info"]
    passed: bool
    given: dict[str, Any]
    "Arguments that the recipe supplies through the suite's `$PARAMETER`s."
    found: str
    rows: int
    bad_rows: int | None
    "Number of rows that break the rule, even if `mostly` tolerates them; None for rules about the whole table."
    examples: list[int]
    "`row` of the first rows that break it."
    by_row: bool
    "Whether every row must obey the rule; if not, it is about the whole file or a share of its rows."
    breaking: list[int] = Field(default=[], exclude=True)
    "`row` of all rows that break it; only for a critical rule by row that fails."
