"""Quarantine: set aside rows that break a rule for single rows, up to the recipe's bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.findings import RuleFinding
from pipeline.data.formats import row_unit
from pipeline.data.input_files import Part, SplitRows, most_aside
from pipeline.data.reading import write_table
from pipeline.recipes.schema import Recipe
from pipeline.texts import some_of

FILE = "quarantine.tsv"
#: Uniqueness rules: keep the first of equal rows, which breaks no rule after the others are removed.
ALIKE = {"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"}


@dataclass(frozen=True)
class Aside:
    """A row that was set aside: its file and row number, the rules that it breaks, and its content."""

    file: str
    row: int
    rules: tuple[str, ...]
    id: str
    text: str
    label: str


def unreadable_rows(split: SplitRows) -> list[Aside]:
    """Return the unreadable rows of every file."""
    return [
        Aside(part.file.name, item.row, (item.rule,), "", item.text, "")
        for part in split.parts
        for item in part.reading.broken
    ]


def breaking_rows(split: SplitRows, findings: Iterable[RuleFinding]) -> dict[int, tuple[str, ...]]:
    """Map each `row` to the critical rules for single rows that it breaks."""
    rules: dict[int, tuple[str, ...]] = {}
    for finding in findings:
        if finding.split != split.split or finding.passed or not finding.by_row or finding.severity != "critical":
            continue
        for row in _to_go(split.rows, finding):
            rules[row] = (*rules.get(row, ()), finding.rule)
    return rules


def _to_go(rows: pd.DataFrame, finding: RuleFinding) -> Sequence[int]:
    if finding.expectation not in ALIKE:
        return finding.breaking
    alike = rows[rows["row"].isin(finding.breaking)]
    later: list[int] = alike.loc[alike.duplicated(finding.columns), "row"].tolist()
    return later


def set_aside(recipe: Recipe, split: SplitRows, rules: dict[int, tuple[str, ...]]) -> list[Aside]:
    """Return the rows whose number is a key of `rules`, with their file, rules and content."""
    texts = recipe.text_columns
    records = split.rows[split.rows["row"].isin(rules.keys())]
    made = []
    for record in records.to_dict("records"):
        file, line = split.place(record["row"])
        text = " | ".join(_shown(record[name]) for name in texts)
        made.append(Aside(file.name, line, rules[record["row"]], _shown(record["id"]), text, _shown(record["label"])))
    return made


def beyond_bound(recipe: Recipe, parts: Sequence[Part], aside: Sequence[Aside]) -> dict[str, int]:
    """Map each file that exceeds the recipe's bound to its number of rows to set aside."""
    counts = Counter(item.file for item in aside)
    names = {part.file.name for part in parts if counts[part.file.name] > most_aside(recipe, part)}
    return {name: count for name, count in counts.items() if name in names}


def excess_sentences(recipe: Recipe, parts: Sequence[Part], excess: Mapping[str, int]) -> list[str]:
    """Return one sentence for each file in `excess`."""
    bound = recipe.data.quarantine
    sentences = []
    for part in parts:
        count = excess.get(part.file.name)
        if count is None:
            continue
        rows = "rows breaks a rule for single rows" if count == 1 else "rows break a rule for single rows"
        sentences.append(
            f"{part.file.path}: {count:,} of {part.count:,} {rows}, but at most {most_aside(recipe, part):,} "
            f"({bound:.1%}, data.quarantine) may be set aside"
        )
    return sentences


def unreadable_sentences(recipe: Recipe, parts: Sequence[Part]) -> list[str]:
    """Return one sentence for each file and reading rule that is broken, with the first rows."""
    sentences = []
    for part in parts:
        for rule, count in Counter(item.rule for item in part.reading.broken).items():
            broken = [item for item in part.reading.broken if item.rule == rule]
            places = [f"{row_unit(recipe.data)} {item.row}{item.detail}" for item in broken]
            verb = "row breaks" if count == 1 else "rows break"
            sentences.append(
                f'{part.file.path}: {count:,} of {part.count:,} {verb} the rule "{rule}": {some_of(places)}'
            )
    return sentences


def write_aside(recipe: Recipe, aside: Sequence[Aside], path: Path) -> None:
    """Write the rows to a tab-separated file with a header; tabs, line ends and backslashes are escaped."""
    cells = [(item.file, str(item.row), "; ".join(item.rules), item.id, item.text, item.label) for item in aside]
    write_table(path, ["file", row_unit(recipe.data), "rule", "id", "text", "label"], cells)


def _shown(value: object) -> str:
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]
