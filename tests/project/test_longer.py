"""The records of the longer tests, and the table of their results."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from tests.support import freshness, long_runs
from tests.support.freshness import Freshness, dependencies, summary
from tests.support.long_runs import DOCUMENT, TARGETS, LongTestRow, name_of, read_table, write_table

TESTS = ROOT / "tests"
ROWS = [
    LongTestRow("`make soak`", "swaps: a[3 minutes]", "passed; 9 swaps", "181", "2026-01-02", "0123456789", "2"),
    LongTestRow(
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
    """Return the names of all tests below the folders of the targets."""
    return {
        name_of(f"{path.relative_to(ROOT)}::{function.name}")
        for folder in TARGETS
        for path in (TESTS / folder).glob("test_*.py")
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


def test_partial_run_keeps_results_of_existing_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = read_table(DOCUMENT.read_text(encoding="utf-8"))
    document = tmp_path / "long-tests.md"
    document.write_text(write_table(kept | {row.name: row for row in ROWS}), encoding="utf-8")
    monkeypatch.setattr(long_runs, "DOCUMENT", document)
    long_runs.ResultBook().pytest_collection_modifyitems([])
    assert read_table(document.read_text(encoding="utf-8")) == kept


def test_no_result_is_a_failure() -> None:
    rows = read_table(DOCUMENT.read_text(encoding="utf-8")).values()
    assert [row.name for row in rows if Freshness(row, 0, ()).failed] == []


@pytest.mark.parametrize(
    ("result", "failed"),
    [("passed", False), ("passed; 9 swaps", False), ("skipped: no GPU", False), ("failed", True), ("failed; x", True)],
)
def test_result_that_is_a_failure_is_told(result: str, failed: bool) -> None:
    assert Freshness(replace(ROWS[0], result=result), 0, ()).failed is failed


@pytest.mark.parametrize(
    ("ago", "changed", "commit", "stale"),
    [
        (0, (), "0123456789", False),
        (7, (), "0123456789", False),
        (7, ("pipeline/stages/train.py",), "0123456789", True),
        (None, (), "0123456789", True),
        (0, (), "0123456789 with changes", True),
    ],
)
def test_result_is_stale_once_its_files_changed(
    ago: int | None, changed: tuple[str, ...], commit: str, stale: bool
) -> None:
    found = Freshness(replace(ROWS[0], commit=commit), ago, changed)
    assert found.stale is stale
    assert summary([found, Freshness(ROWS[0], 0, ())]) == (
        "longer tests: 1 of 2 are older than the files they depend on; `make long-tests` lists them" if stale else ""
    )


def test_summary_counts_failures() -> None:
    failed = Freshness(replace(ROWS[0], result="failed"), 0, ())
    assert summary([failed]) == "longer tests: 1 failed; `make long-tests` lists them"


def test_dependencies_are_what_a_test_imports_and_starts() -> None:
    found = dependencies(ROOT / "tests" / "faults" / "test_killed_training.py")
    assert {"tests/faults/test_killed_training.py", "tests/conftest.py", "tests/support/small_pipeline.py"} <= found
    # Imports inside functions count too.
    assert {"pipeline/stages/train.py", "pipeline/training/checkpoints.py", "pipeline/stages/export.py"} <= found
    assert "dags/approval.py" not in found
    assert "serving/api/request_body.py" in dependencies(ROOT / "tests" / "soak" / "test_swaps.py")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with a longer test, a helper that it imports, and an unrelated module."""
    files = {"tests/soak/test_swaps.py": "import tests.helper", "tests/helper.py": "", "pipeline/other.py": ""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("tests.support.freshness.ROOT", tmp_path)
    forget_git()
    git(tmp_path, "init", "-q")
    return tmp_path


def forget_git() -> None:
    for cached in (freshness._changed_since, freshness._commits_since, freshness._data_files):
        cached.cache_clear()


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout.strip()


def commit_all(directory: Path) -> str:
    git(directory, "add", ".")
    git(directory, "commit", "-q", "--allow-empty", "-m", "test")
    return git(directory, "rev-parse", "--short=10", "HEAD")


@pytest.mark.parametrize(
    ("file", "changed"), [("tests/helper.py", ("tests/helper.py",)), ("pipeline/other.py", ())], ids=["own", "other"]
)
def test_changed_file_makes_dependent_results_stale(checkout: Path, file: str, changed: tuple[str, ...]) -> None:
    row = replace(ROWS[0], commit=commit_all(checkout))
    assert (freshness.check(row).ago, freshness.check(row).changed) == (0, ())
    (checkout / file).write_text("changed = 1")
    forget_git()
    # Committed or not.
    assert freshness.check(row).changed == changed
    commit_all(checkout)
    commit_all(checkout)
    forget_git()
    assert (freshness.check(row).ago, freshness.check(row).changed) == (2, changed)


def test_commit_that_is_not_known_says_nothing(checkout: Path) -> None:
    commit_all(checkout)
    assert freshness.check(ROWS[0]).ago is None


@pytest.mark.parametrize("folder", sorted(TARGETS))
def test_longer_tests_are_left_out_of_the_others(folder: str, pytestconfig: pytest.Config) -> None:
    assert f"not {folder}" in pytestconfig.getini("addopts")[-1]
    for path in (TESTS / folder).glob("test_*.py"):
        assert f"pytestmark = pytest.mark.{folder}\n" in path.read_text(encoding="utf-8")
