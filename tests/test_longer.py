"""The longer tests' own bookkeeping, and the table that it keeps."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeline.settings import ROOT
from tests.longer import DOCUMENT, TARGETS, Row, name_of, read_table, write_table

ROWS = [
    Row("`make soak`", "swaps: a[3 minutes]", "passed; 9 swaps", "181", "2026-01-02", "0123456789", "2"),
    Row(
        "`make test-faults`",
        "full disk: b",
        "skipped: only root can",
        "0",
        "2026-01-02",
        "0123456789 with changes",
        "2",
    ),
]


def longer_tests() -> set[tuple[str, str]]:
    """Names of all tests below the folders of the targets."""
    return {
        name_of(f"{path.relative_to(ROOT)}::{function.name}")
        for folder in TARGETS
        for path in (Path(__file__).parent / folder).glob("test_*.py")
        for function in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
    }


def test_what_is_written_is_read_again() -> None:
    rows = {row.name: row for row in ROWS}
    assert read_table(write_table(rows)) == rows
    assert write_table(read_table(write_table(rows))) == write_table(rows)


def test_a_name_is_made_of_words() -> None:
    assert name_of("tests/soak/test_swaps.py::test_it_goes_on[3 minutes]") == (
        "`make soak`",
        "swaps: it goes on[3 minutes]",
    )


def test_the_table_names_the_longer_tests() -> None:
    rows = read_table(DOCUMENT.read_text(encoding="utf-8"))
    assert {(target, test.partition("[")[0]) for target, test in rows} == longer_tests()


@pytest.mark.parametrize("folder", sorted(TARGETS))
def test_longer_tests_are_left_out_of_the_others(folder: str, pytestconfig: pytest.Config) -> None:
    assert f"not {folder}" in pytestconfig.getini("addopts")[-1]
    for path in (Path(__file__).parent / folder).glob("test_*.py"):
        assert f"pytestmark = pytest.mark.{folder}\n" in path.read_text(encoding="utf-8")
