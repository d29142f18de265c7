"""Expectation suites: Great Expectations run on one table in a copy of the project, read into findings."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context import FileDataContext
from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier
from great_expectations.exceptions import DataContextError, GreatExpectationsError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from pydantic import BaseModel, ConfigDict, Field

from pipeline.data.reading import Split
from pipeline.data.suite_files import suite_path
from pipeline.errors import DataError

#: What a suite without a checkpoint of its own is run with.
RESULT_FORMAT = {
    "result_format": "SUMMARY",
    "partial_unexpected_count": 20,
    "unexpected_index_column_names": ["row", "id"],
}
#: Never copied: what a person made in the project by hand, and Python's leavings.
LEFT_OUT = ("uncommitted", "__pycache__", "__init__.py")


class RuleFinding(BaseModel):
    """What one expectation found in one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Split
    expectation: str
    columns: list[str]
    rule: str
    reason: str
    severity: Literal["critical", "warning", "info"]
    passed: bool
    given: dict[str, Any]
    "Its arguments that come from the recipe, as the suite's `$PARAMETER`s."
    found: str
    rows: int
    bad_rows: int | None
    "Rows that break the rule, also where the rule tolerates that many; None for rules about the whole table."
    examples: list[int]
    "`row` of the first of them."
    by_row: bool
    "Whether every single row must obey it; else it speaks of the whole file, or of a share of its rows."
    breaking: list[int] = Field(default=[], exclude=True)
    "`row` of all of them, where it is critical, by row and does not hold."


@dataclass(frozen=True)
class OpenSuite:
    """A suite in a copy of the project, ready to run."""

    name: str
    project: Path
    "The copy."
    context: FileDataContext
    asked: Mapping[str, set[str]]
    "The arguments of each expectation, by its id, that the recipe gives."


def open_suite(project: Path, target: Path, suite: str) -> OpenSuite:
    """Copy the Great Expectations project to `target` and open its suite there; the original is only read.

    Two runs that write one data docs site get in each other's way. A suite written by hand has no
    ids; it is given some in the copy. Raises DataError where the suite cannot be used as it stands.
    """
    shutil.copytree(project, target, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    rules = _read_rules(suite_path(project, suite))
    asked = {rule["id"]: {name for name, value in rule["kwargs"].items() if isinstance(value, dict)} for rule in rules}
    path = suite_path(target, suite)
    document = json.loads(path.read_text(encoding="utf-8"))
    document |= {"name": suite, "id": document.get("id") or str(uuid.uuid4()), "expectations": rules}
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return OpenSuite(suite, target, gx.get_context(mode="file", context_root_dir=target, cloud_mode=False), asked)


def run_suite(opened: OpenSuite, split: Split, table: pd.DataFrame, parameters: Mapping[str, Any]) -> list[RuleFinding]:
    """Run the suite's checkpoint on one file's rows; one finding an expectation.

    `table` has the columns of `pipeline.data.rules.checked_table`. Raises DataError naming the suite where an
    expectation cannot be evaluated at all.
    """
    try:
        result = _checkpoint(opened.context, opened.name).run(
            batch_parameters={"dataframe": table},
            expectation_parameters=dict(parameters),
            run_id=gx.RunIdentifier(run_name=split),
        )
    except (GreatExpectationsError, ValueError, TypeError) as error:
        raise DataError(f"suite {opened.name} cannot be run: {error}") from error
    outcomes = [outcome for validation in result.run_results.values() for outcome in validation.results]
    findings = [_finding(opened, split, len(table), outcome) for outcome in outcomes]
    return [
        finding.model_copy(update={"breaking": _all_breaking(opened, table, parameters, finding, outcome)})
        for finding, outcome in zip(findings, outcomes, strict=True)
    ]


def build_site(opened: OpenSuite) -> Path:
    """Great Expectations' data docs of the suite and its runs, without an index; the directory.

    Once, and not as an action of each checkpoint: every build compiles all its templates again.
    """
    pages: list[Any] = [
        *opened.context.validation_results_store.list_keys(),
        ExpectationSuiteIdentifier(opened.name),
    ]
    opened.context.build_data_docs(resource_identifiers=pages, build_index=False)
    return opened.project / "uncommitted" / "data_docs"


def _all_breaking(
    opened: OpenSuite,
    table: pd.DataFrame,
    parameters: Mapping[str, Any],
    finding: RuleFinding,
    outcome: ExpectationValidationResult,
) -> list[int]:
    """Every `row` that breaks a critical rule for single rows; the checkpoint's own result names only the first."""
    if finding.passed or not finding.by_row or finding.severity != "critical":
        return []
    if finding.bad_rows == len(finding.examples):
        return finding.examples
    assert outcome.expectation_config is not None
    (expectation,) = [
        item for item in opened.context.suites.get(opened.name).expectations if item.id == outcome.expectation_config.id
    ]
    batch = opened.context.data_sources.get("files").get_asset("rows").get_batch_definition("all")
    complete = batch.get_batch({"dataframe": table}).validate(
        expectation,
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]},
        expectation_parameters=dict(parameters),
    )
    return [int(item["row"]) for item in complete.result["unexpected_index_list"]]


def _read_rules(path: Path) -> list[dict[str, Any]]:
    """The expectations of a suite, an id each. Raises DataError for one that does not exist.

    Great Expectations itself logs those and goes on without them: a rule misspelt would be a rule less.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    rules = document.get("expectations") if isinstance(document, dict) else None
    if not rules:
        raise DataError(f"{path} has no `expectations`: such a suite would let any file pass")
    rules = [{"id": str(uuid.uuid4()), "kwargs": {}} | rule for rule in rules]
    for number, rule in enumerate(rules, 1):
        try:
            ExpectationConfiguration(**rule).to_domain_obj()
        except (GreatExpectationsError, ValueError, TypeError) as error:
            raise DataError(f"{path}: expectation {number} ({rule.get('type')}) is not valid: {error}") from error
    return rules


def _checkpoint(context: FileDataContext, suite: str) -> gx.Checkpoint:
    try:
        return context.checkpoints.get(suite)
    except DataContextError:
        rows = context.data_sources.get("files").get_asset("rows").get_batch_definition("all")
        validation = context.validation_definitions.add_or_update(
            gx.ValidationDefinition(name=suite, data=rows, suite=context.suites.get(suite))
        )
        return context.checkpoints.add(
            gx.Checkpoint(
                name=suite,
                validation_definitions=[validation],
                actions=[],
                result_format=RESULT_FORMAT,
            )
        )


def _finding(opened: OpenSuite, split: Split, rows: int, outcome: ExpectationValidationResult) -> RuleFinding:
    config = outcome.expectation_config
    assert config is not None
    problem = _exception(outcome.exception_info)
    if problem:
        raise DataError(f"suite {opened.name}: {config.type} {_plain(config.kwargs)} cannot be evaluated: {problem}")
    kwargs = {name: value for name, value in config.kwargs.items() if value is not None and name != "batch_id"}
    result = outcome.result
    bad_rows = result.get("unexpected_count")
    examples = [int(item["row"]) for item in result.get("partial_unexpected_index_list") or [] if "row" in item]
    given = _plain({name: value for name, value in kwargs.items() if name in opened.asked.get(config.id or "", ())})
    return RuleFinding(
        split=split,
        expectation=config.type,
        columns=[kwargs["column"]] if "column" in kwargs else list(kwargs.get("column_list", [])),
        rule=config.description or f"{config.type} {json.dumps(_plain(kwargs), ensure_ascii=False)}",
        reason=" ".join(config.notes) if isinstance(config.notes, list) else config.notes or "",
        severity=config.severity.value,
        passed=bool(outcome.success),
        given=given,
        found=_found(result.get("observed_value"), bad_rows),
        rows=rows,
        bad_rows=None if bad_rows is None else int(bad_rows),
        examples=examples,
        by_row=bad_rows is not None and kwargs.get("mostly", 1) == 1,
    )


def _found(observed: Any, bad_rows: Any) -> str:
    if bad_rows is not None:
        return {0: "no row breaks it", 1: "1 row breaks it"}.get(bad_rows, f"{bad_rows:,} rows break it")
    if observed is None or observed != observed:  # NaN: the mean of nothing
        return "nothing to measure"
    if isinstance(observed, int | float):
        return f"{observed:,}" if isinstance(observed, int) else f"{observed:.4g}"
    return ", ".join(observed) if isinstance(observed, list) else str(observed)


def _exception(info: Mapping[str, Any]) -> str:
    """The message of what an expectation raised; empty where it raised nothing."""
    # Great Expectations gives one such mapping, or one for each metric that failed.
    records = [info] if "raised_exception" in info else list(info.values())
    return "; ".join(str(item["exception_message"]) for item in records if item.get("raised_exception"))


def _plain(value: Any) -> Any:
    """The value as JSON holds it."""
    return json.loads(json.dumps(value, default=str, ensure_ascii=False))
