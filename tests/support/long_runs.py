"""pytest plugin of the longer tests: a table of results in the docs, from which an interrupted run resumes.

The last result of each test is written to docs/results/long-tests.md as soon as the test ends. A test that passed at
the current commit is not run again; FRESH=1 runs all. If files differ from the commit, the table says "with changes"
and all tests run.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from pipeline.atomic_files import replace_file
from pipeline.config_file import ROOT
from tests.support.checkout import CHANGED, commit_besides

DOCUMENT = ROOT / "docs" / "results" / "long-tests.md"
COLUMNS = ("Target", "Test", "Result", "Seconds", "Date", "Commit", "Cores")
TARGETS = {
    "faults": "`make test-faults`",
    "models": "`make test-models`",
    "soak": "`make soak`",
    "topology": "`make test-topology`",
}
PASSED = "passed"
INTRODUCTION = """\
# Longer tests

The last result of each longer test, written by the runs themselves. A test that passed at the current commit is not run
again; `FRESH=1` runs all. `make long-tests` lists the age of each result in commits and the changed files that its test
depends on. `make test` ends with a warning if such files have changed. `make soak SAEBYEOK_SOAK_MINUTES=600` runs a
long soak test; rerun the command to resume it.
"""


@dataclass(frozen=True)
class LongTestRow:
    """A row of the table: one test and its last result."""

    target: str
    test: str
    result: str
    seconds: str
    date: str
    commit: str
    cores: str

    @property
    def name(self) -> tuple[str, str]:
        return self.target, self.test

    def cells(self) -> tuple[str, ...]:
        return self.target, self.test, self.result, self.seconds, self.date, self.commit, self.cores


@cache
def commit() -> str:
    """Return the current commit, followed by " with changes" if files other than the table differ from it."""
    return commit_besides(ROOT, DOCUMENT)


def is_fresh() -> bool:
    """Return whether to ignore the results of earlier runs."""
    return bool(os.environ.get("FRESH")) or commit().endswith(CHANGED)


def name_of(nodeid: str) -> tuple[str, str]:
    """Return target and readable name: `tests/soak/test_swaps.py::test_no_one_notices` is `swaps: no one notices`."""
    path, _, function = nodeid.partition("::")
    words = f"{Path(path).stem.removeprefix('test_')}: {function.removeprefix('test_')}".replace("_", " ")
    return TARGETS[Path(path).parent.name], words


def has_test(row: LongTestRow) -> bool:
    """Return whether the test of a row still exists."""
    folder = next((folder for folder, target in TARGETS.items() if target == row.target), "")
    stem, _, function = row.test.partition("[")[0].replace(" ", "_").partition(":_")
    file = ROOT / "tests" / folder / f"test_{stem}.py"
    return file.is_file() and f"def test_{function}(" in file.read_text(encoding="utf-8")


def read_table(text: str) -> dict[tuple[str, str], LongTestRow]:
    """Return the rows of a document, by target and test."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    rows = [LongTestRow(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
    return {row.name: row for row in rows}


def write_table(rows: dict[tuple[str, str], LongTestRow]) -> str:
    """Return the document with these rows."""
    table = [COLUMNS, ("---",) * len(COLUMNS), *(rows[name].cells() for name in sorted(rows))]
    return f"{INTRODUCTION}\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


@dataclass
class ResultBook:
    """The plugin: skips tests that have passed and records each result."""

    done: set[str] = field(default_factory=set)
    reports: dict[str, list[pytest.TestReport]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        rows = self._rows()
        # A run of some tests keeps the results of the others.
        self._write({name: row for name, row in rows.items() if has_test(row)})
        for item in items:
            row = rows.get(name_of(item.nodeid))
            if row and row.result.startswith(PASSED) and row.commit == commit() and not is_fresh():
                self.done.add(item.nodeid)
                item.add_marker(pytest.mark.skip(f"passed at this commit on {row.date}; FRESH=1 runs it again"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reports = self.reports.setdefault(report.nodeid, [])
        reports.append(report)
        if report.when == "teardown" and report.nodeid not in self.done:
            row = _row(report.nodeid, reports)
            self._write(self._rows() | {row.name: row})

    @staticmethod
    def _rows() -> dict[tuple[str, str], LongTestRow]:
        return read_table(DOCUMENT.read_text(encoding="utf-8")) if DOCUMENT.exists() else {}

    @staticmethod
    def _write(rows: dict[tuple[str, str], LongTestRow]) -> None:
        replace_file(DOCUMENT, write_table(rows))


def _row(nodeid: str, reports: list[pytest.TestReport]) -> LongTestRow:
    result = "failed" if any(report.failed for report in reports) else PASSED
    skipped = next((report for report in reports if report.skipped), None)
    if skipped is not None:
        # (file, line, "Skipped: reason")
        result = f"skipped: {str(skipped.longrepr[2]).removeprefix('Skipped: ')}"  # type: ignore[index]
    notes = [str(value) for name, value in reports[-1].user_properties if name == "note"]
    return LongTestRow(
        *name_of(nodeid),
        result=re.sub(r"[|\s]+", " ", "; ".join([result, *notes])),
        seconds=f"{sum(report.duration for report in reports):.0f}",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=commit(),
        cores=str(os.cpu_count()),
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin when this module is named: `pytest -p tests.support.long_runs`."""
    config.pluginmanager.register(ResultBook())
