"""The quarantine's bound, just below and just above, and its choice of rows, without running a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.data.findings import RuleFinding
from pipeline.data.formats import Broken, Reading
from pipeline.data.input_files import InputFile, Part, SplitRows, join_parts
from pipeline.data.quarantine import (
    FILE,
    Aside,
    beyond_bound,
    breaking_rows,
    excess_sentences,
    set_aside,
    unreadable_rows,
    unreadable_sentences,
    write_aside,
)
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe


def recipe_of(bound: float) -> Recipe:
    return load_recipe("nsmc", "embedded", overrides={"data.quarantine": bound})


def part(name: str, rows: int, broken: int = 0) -> Part:
    """Return a file with `rows` rows, the last ones broken."""
    items = [Broken(row=row, rule="it can be read", text="text") for row in range(rows - broken, rows)]
    return Part(
        InputFile(name, Path(f"/data/{name}"), b""), Reading(pd.DataFrame({"row": range(rows - broken)}), items)
    )


def aside(file: str, count: int) -> list[Aside]:
    return [Aside(file, row, ("a rule",), "", "", "") for row in range(count)]


@pytest.mark.parametrize(
    ("bound", "rows", "allowed"), [(0.02, 50, 5), (0.02, 100, 7), (0.29, 100, 44), (0.005, 194, 5), (1e-6, 900, 0)]
)
def test_file_may_lose_rows_up_to_its_bound(bound: float, rows: int, allowed: int) -> None:
    recipe = recipe_of(bound)
    # Broken rows count as rows of the file.
    parts = [part("one", rows, broken=1), part("other", 10_000)]
    assert beyond_bound(recipe, parts, aside("one", allowed)) == {}
    excess = beyond_bound(recipe, parts, [*aside("one", allowed + 1), *aside("other", 0 if allowed == 0 else 3)])
    assert excess == {"one": allowed + 1}
    # One of 900 rows has a probability of 9 in 10,000 if one of a million is bad.
    verb = "rows breaks" if allowed == 0 else "rows break"
    assert excess_sentences(recipe, parts, excess) == [
        f"/data/one: {allowed + 1} of {rows} {verb} a rule for single rows, but at most {allowed} ({bound:.1%}, "
        "data.quarantine) may be set aside"
    ]


def test_unreadable_rows_carry_file_line_and_rule() -> None:
    split = join_parts("train", [part("one", 3, broken=1), part("other", 2)])
    assert unreadable_rows(split) == [Aside("one", 2, ("it can be read",), "", "text", "")]


def finding(**changes: Any) -> RuleFinding:
    """Return a critical rule for single rows that rows 2 and 4 of the train file break."""
    found: dict[str, Any] = {
        "split": "train",
        "rule": "a rule",
        "expectation": "expect_column_values_to_be_in_set",
        "columns": ["label"],
        "severity": "critical",
        "passed": False,
        "by_row": True,
        "breaking": [2, 4],
    }
    return RuleFinding.model_construct(**found | changes)


@pytest.fixture
def split() -> SplitRows:
    rows = pd.DataFrame({"row": [1, 2, 3, 4], "id": ["a", "b", "a", "b"], "label": ["1", "7", "1", "7"]})
    return SplitRows("train", (), rows)


@pytest.mark.parametrize(
    "changes", [{"split": "test"}, {"passed": True}, {"by_row": False}, {"severity": "warning"}], ids=str
)
def test_no_row_goes_for_another_kind_of_finding(split: SplitRows, changes: dict[str, Any]) -> None:
    assert breaking_rows(split, [finding(**changes)]) == {}
    assert breaking_rows(split, [finding(**changes), finding()]) == {2: ("a rule",), 4: ("a rule",)}


def test_row_breaking_two_rules_names_both(split: SplitRows) -> None:
    findings = [finding(), finding(rule="another rule", breaking=[4])]
    assert breaking_rows(split, findings) == {2: ("a rule",), 4: ("a rule", "another rule")}


@pytest.mark.parametrize("kind", ["expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"])
def test_first_of_rows_that_are_alike_stays(split: SplitRows, kind: str) -> None:
    alike = finding(expectation=kind, columns=["id"], breaking=[1, 2, 3, 4])
    assert breaking_rows(split, [alike]) == {3: ("a rule",), 4: ("a rule",)}


# --- what is said of the rows, and kept of them ---


def test_excess_sentences_follow_the_files(split: SplitRows) -> None:
    recipe, parts = recipe_of(0.001), [part(name, 2000) for name in ("one", "two", "three")]
    assert excess_sentences(recipe, parts, {"three": 9, "one": 1234}) == [
        "/data/one: 1,234 of 2,000 rows break a rule for single rows, but at most 8 (0.1%, data.quarantine) may be set "
        "aside",
        "/data/three: 9 of 2,000 rows break a rule for single rows, but at most 8 (0.1%, data.quarantine) may be set "
        "aside",
    ]


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([{"id": "a", "text": "good", "text_pair": "fine", "label": "1"} | row for row in rows])


def test_set_aside_rows_keep_place_rules_and_content() -> None:
    first = Part(InputFile("one", Path("one"), b""), Reading(table({"row": 2}, {"row": 3, "id": "b"}), ()))
    second = Part(InputFile("two", Path("two"), b""), Reading(table({"row": 2, "id": None, "label": 7}), ()))
    split = join_parts("train", [first, second])
    rules = {3: ("a rule", "another"), 5: ("a third",)}
    assert set_aside(load_recipe("nsmc", "embedded"), split, rules) == [
        Aside("one", 3, ("a rule", "another"), "b", "good", "1"),
        Aside("two", 2, ("a third",), "", "good", "7"),
    ]
    (pair, _) = set_aside(load_recipe("klue-sts", "embedded"), split, rules)
    assert pair.text == "good | fine"
    assert set_aside(load_recipe("nsmc", "embedded"), split, {}) == []


def test_unreadable_sentences_name_file_rule_and_first_rows() -> None:
    broken = [Broken(2, "two tabs", "x", ": 3 tabs"), Broken(5, "UTF-8", "y"), Broken(7, "two tabs", "z")]
    many = [Broken(row, "two tabs", "x") for row in range(1500)]
    readings = [Reading(table({"row": 1}), tuple(items)) for items in (broken, [], many)]
    parts = [
        Part(InputFile(name, Path(f"/data/{name}"), b""), reading)
        for name, reading in zip(("one", "sound", "two"), readings, strict=True)
    ]
    first, second, third = unreadable_sentences(load_recipe("nsmc", "embedded"), parts)
    assert first == '/data/one: 2 of 4 rows break the rule "two tabs": line 2: 3 tabs, line 7'
    assert second == '/data/one: 1 of 4 row breaks the rule "UTF-8": line 5'
    assert third.startswith('/data/two: 1,500 of 1,501 rows break the rule "two tabs": line 0, line 1, ')
    assert "item 5" in unreadable_sentences(load_recipe("klue-sts", "embedded"), parts)[1]


def test_written_rows_are_a_table_with_a_header(tmp_path: Path) -> None:
    rows = [Aside("one", 3, ("a rule", "another"), "b", "tab\there", "1"), Aside("two", 4, ("a rule",), "", "", "")]
    for name, unit in (("nsmc", "line"), ("klue-sts", "item")):
        write_aside(load_recipe(name, "embedded"), rows, tmp_path / FILE)
        assert (tmp_path / "quarantine.tsv").read_text(encoding="utf-8") == (
            f"file\t{unit}\trule\tid\ttext\tlabel\none\t3\ta rule; another\tb\ttab\\there\t1\ntwo\t4\ta rule\t\t\t\n"
        )
