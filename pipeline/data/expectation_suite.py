"""Expectation suites: run Great Expectations on a table in a copy of its project, and return findings."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context import FileDataContext
from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier
from great_expectations.exceptions import DataContextError, GreatExpectationsError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from pipeline.data.findings import RuleFinding
from pipeline.data.reading import Split
from pipeline.data.suite_files import named_suite, read_suite, suite_name, write_project
from pipeline.errors import DataError
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings

#: Result format for a suite without its own checkpoint.
RESULT_FORMAT = {
    "result_format": "SUMMARY",
    "partial_unexpected_count": 20,
    "unexpected_index_column_names": ["row", "id"],
}


@dataclass(frozen=True)
class OpenSuite:
    """A suite in a copy of the project, ready to run."""

    name: str
    project: Path
    "The copy."
    context: FileDataContext
    asked: Mapping[str, set[str]]
    "Expectation id to the names of the arguments that the recipe supplies."


def open_suite(settings: Settings, target: Path, recipe: Recipe) -> OpenSuite:
    """Copy the Great Expectations project to `target` and open the recipe's suite there; the original is only read.

    The copy keeps concurrent runs from writing to the same data docs site. A suite written by hand has no
    ids; they are added in the copy. Raises DataError if the suite is missing or invalid.
    """
    suite, copy = suite_name(recipe), write_project(settings, recipe, target)
    path = named_suite(settings, recipe) or copy
    document = read_suite(path)
    rules = _valid_rules(path, document["expectations"])
    asked = {rule["id"]: {name for name, value in rule["kwargs"].items() if isinstance(value, dict)} for rule in rules}
    document |= {"name": suite, "id": document.get("id") or str(uuid.uuid4()), "expectations": rules}
    copy.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return OpenSuite(suite, target, gx.get_context(mode="file", context_root_dir=target, cloud_mode=False), asked)


def run_suite(opened: OpenSuite, split: Split, table: pd.DataFrame, parameters: Mapping[str, Any]) -> list[RuleFinding]:
    """Run the suite's checkpoint on the rows of one file; return one finding per expectation.

    `table` has the columns of `pipeline.data.rules.checked_table`. Raises DataError with the suite's name if an
    expectation cannot be evaluated.
    """
    try:
        result = _checkpoint(opened.context, opened.name).run(
            batch_parameters={"dataframe": table},
            expectation_parameters=dict(parameters),
            run_id=gx.RunIdentifier(run_name=split),
        )
    except (GreatExpectationsError, ValueError, TypeError) as error:
        given = ", ".join(parameters)
        raise DataError(
            f"suite {opened.name} cannot be run: {error}; correct the suite, to which the recipe supplies the "
            f"parameters {given}"
        ) from error
    outcomes = [outcome for validation in result.run_results.values() for outcome in validation.results]
    findings = [_finding(opened, split, len(table), outcome) for outcome in outcomes]
    return [
        finding.model_copy(update={"breaking": _all_breaking(opened, table, parameters, finding, outcome)})
        for finding, outcome in zip(findings, outcomes, strict=True)
    ]


def build_site(opened: OpenSuite) -> Path:
    """Build Great Expectations' data docs of the suite and its runs, without an index; return the directory.

    Built once, not as an action of each checkpoint, because every build compiles all templates again.
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
    """Return every `row` that breaks a critical rule for single rows; the checkpoint's result lists only the first."""
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


def _valid_rules(path: Path, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the expectations of the suite `path`, each with an id. Raises DataError for an unknown expectation.

    Great Expectations only logs unknown expectations and skips them, so a misspelt rule would never be checked.
    """
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
        raise DataError(
            f"suite {opened.name}: {config.type} {_plain(config.kwargs)} cannot be evaluated: {problem}; correct this "
            "expectation"
        )
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
    if observed is None or observed != observed:  # NaN: the mean of an empty column
        return "nothing to measure"
    if isinstance(observed, int | float):
        return f"{observed:,}" if isinstance(observed, int) else f"{observed:.4g}"
    return ", ".join(observed) if isinstance(observed, list) else str(observed)


def _exception(info: Mapping[str, Any]) -> str:
    """Return the message of the exception that an expectation raised; empty if none."""
    # Great Expectations returns one such mapping, or one for each failed metric.
    records = [info] if "raised_exception" in info else list(info.values())
    return "; ".join(str(item["exception_message"]) for item in records if item.get("raised_exception"))


def _plain(value: Any) -> Any:
    """Return `value` converted to JSON types."""
    return json.loads(json.dumps(value, default=str, ensure_ascii=False))
