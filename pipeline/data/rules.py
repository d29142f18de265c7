"""Rules: run a suite on both splits, set aside the rows that break it, and run it again on the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data.expectation_suite import OpenSuite, open_suite, run_suite
from pipeline.data.findings import RuleFinding
from pipeline.data.formats import row_unit
from pipeline.data.input_files import SplitRows
from pipeline.data.quarantine import (
    Aside,
    beyond_bound,
    breaking_rows,
    excess_sentences,
    set_aside,
    unreadable_rows,
    unreadable_sentences,
)
from pipeline.data.reading import (
    SPLITS,
    TEXT_RULE,
    Split,
    has_label,
    has_text,
    label_numbers,
    label_rule,
    shown_label,
)
from pipeline.job import Job
from pipeline.recipes.schema import Recipe
from pipeline.texts import SHOWN, some_of, visible


@dataclass(frozen=True)
class Held:
    """The result of checking the splits against the suite."""

    splits: dict[Split, SplitRows]
    "The rows that are kept; all rows if the data is refused."
    tables: dict[Split, pd.DataFrame]
    "`checked_table` of each split."
    findings: list[RuleFinding]
    "Findings about the rows in `splits`."
    aside: list[Aside]
    problems: list[str]
    "Reasons why the run must stop, one sentence each."
    suite: OpenSuite
    "The suite that produced `findings`."
    excess: Mapping[str, int]
    "Name of each file that exceeds the recipe's bound to its number of rows to set aside."


def hold(job: Job, splits: Mapping[Split, SplitRows], project: Path) -> Held:
    """Run the suite in copies of the project below `project`; run it again if rows are set aside.

    Rows that break a critical rule for single rows are set aside, up to the recipe's bound. The remaining rows must
    obey every critical rule. Figures of the whole file are computed on these remaining rows.
    """
    recipe = job.recipe
    held = _run(job, dict(splits), project / "all")
    rules = {split: breaking_rows(rows, held.findings) for split, rows in splits.items()}
    aside = [
        item
        for split, rows in splits.items()
        for item in [*unreadable_rows(rows), *set_aside(recipe, rows, rules[split])]
    ]
    parts = [part for rows in splits.values() for part in rows.parts]
    excess = beyond_bound(recipe, parts, aside)
    if excess:
        problems = [
            *unreadable_sentences(recipe, parts),
            *_criticals(recipe, held),
            *excess_sentences(recipe, parts, excess),
        ]
        return replace(held, aside=aside, problems=problems, excess=excess)
    if any(rules.values()):
        held = _run(job, {split: rows.without(rules[split]) for split, rows in splits.items()}, project / "kept")
    return replace(held, aside=aside, problems=_criticals(recipe, held))


def _run(job: Job, splits: dict[Split, SplitRows], project: Path) -> Held:
    recipe = job.recipe
    rows = {split: splits[split].rows for split in SPLITS}
    tables = {split: checked_table(recipe, rows, split) for split in SPLITS}
    opened = open_suite(job.settings, project, recipe)
    findings: list[RuleFinding] = []
    for split, table in tables.items():
        found = run_suite(opened, split, table, suite_parameters(recipe, split))
        findings += [*found, *_invariants(recipe, splits[split], table, found)]
    return Held(splits, tables, findings, [], [], opened, {})


def _invariants(
    recipe: Recipe, rows: SplitRows, table: pd.DataFrame, found: Sequence[RuleFinding]
) -> Iterator[RuleFinding]:
    """Yield findings about rows without a text or a valid label that no finding of the suite sets aside.

    No model can learn from such rows, so they are always found; most expectations of a suite skip nulls.
    """
    unseen = ~table["row"].isin(breaking_rows(rows, found).keys())
    faults = {
        TEXT_RULE: (recipe.text_columns, ~has_text(recipe, table)),
        label_rule(recipe): (["label"], ~has_label(recipe, table)),
    }
    for rule, (columns, breaks) in faults.items():
        broken: list[int] = table.loc[breaks & unseen, "row"].tolist()
        if broken:
            yield RuleFinding(
                split=rows.split,
                expectation="",
                columns=columns,
                rule=rule,
                reason="A model can neither learn from such a row nor be measured on it, whatever the suite says.",
                severity="critical",
                passed=False,
                given={},
                found="1 row breaks it" if len(broken) == 1 else f"{len(broken):,} rows break it",
                rows=len(table),
                bad_rows=len(broken),
                examples=broken[:SHOWN],
                by_row=True,
                breaking=broken,
            )


def checked_table(recipe: Recipe, tables: Mapping[Split, pd.DataFrame], split: Split) -> pd.DataFrame:
    """Return the table that a suite checks: the rows of `split` (see `read_rows`) and derived columns.

    Derived: `split`; `label_number` (class number or score; NaN if invalid); `in_train` (test rows: whether the
    exact text occurs in train); `id_in_test` (train rows: whether the id occurs in test; the train row is set aside,
    because the test file stays unchanged); `contradicts` (whether the text occurs in this file with another label).
    """
    texts, rows = recipe.text_columns, tables[split]
    is_test = split == "test"
    known = pd.MultiIndex.from_frame(tables["train"][texts])
    pairs = rows[[*texts, "label"]].drop_duplicates()
    disputed = pd.MultiIndex.from_frame(pairs.loc[pairs.duplicated(texts), texts])
    own = pd.MultiIndex.from_frame(rows[texts])
    return rows.assign(
        split=split,
        label_number=label_numbers(recipe, rows["label"]),
        in_train=own.isin(known) & is_test,
        id_in_test=rows["id"].isin(tables["test"]["id"].dropna()) & (not is_test),
        contradicts=own.isin(disputed),
    )


def suite_parameters(recipe: Recipe, split: Split) -> dict[str, Any]:
    """Return the values that a suite may refer to as `{"$PARAMETER": name}`."""
    rows = recipe.data.min_train_rows if split == "train" else recipe.data.min_test_rows
    return {"min_rows": rows, **recipe.task.suite_parameters(recipe)}


def _criticals(recipe: Recipe, held: Held) -> list[str]:
    return [sentence(recipe, held, item) for item in held.findings if not item.passed and item.severity == "critical"]


def sentence(recipe: Recipe, held: Held, finding: RuleFinding) -> str:
    """Return a sentence with file, rows and rule for a rule that fails."""
    split = held.splits[finding.split]
    given = ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in finding.given.items())
    rule = f'the rule "{finding.rule}"' + (f" ({given})" if given else "")
    if finding.bad_rows is None:
        return f"{split.shown}: the whole file (rows: {finding.rows:,}) breaks {rule}: found {finding.found}"
    by_row = held.tables[finding.split].set_index("row")
    places = [_place(recipe, split, by_row, row, finding.columns) for row in finding.examples]
    broken = f"{finding.bad_rows:,} of {finding.rows:,} rows {'breaks' if finding.bad_rows == 1 else 'break'} {rule}"
    return f"{split.shown}: {broken}: {some_of(places, finding.bad_rows)}"


def _place(recipe: Recipe, split: SplitRows, by_row: pd.DataFrame, row: int, columns: list[str]) -> str:
    record, (file, line) = by_row.loc[row], split.place(row)
    shown = [f"id {visible(str(record['id']))}"]
    if "label" in columns or "label_number" in columns:
        shown.append(shown_label(record["label"]))
    where = "" if file == split.parts[0].file else f" of {file.name}"
    return f"{row_unit(recipe.data)} {line}{where} ({', '.join(shown)})"
