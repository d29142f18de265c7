"""What the targets of longer tests add to pytest: a table of results in the docs, by which they go on.

Each test's last result is written to docs/long-tests.md as soon as it is there. A test that passed at the commit
that is checked out is not run again, so that a run that was cut off goes on where it was; FRESH=1 runs all.
Where files differ from the commit, the table says so, and nothing is taken as done.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from pipeline.settings import ROOT

DOCUMENT = ROOT / "docs" / "long-tests.md"
COLUMNS = ("Target", "Test", "Result", "Seconds", "Date", "Commit", "Cores")
TARGETS = {"faults": "`make test-faults`", "models": "`make test-models`", "soak": "`make soak`"}
PASSED, CHANGED = "passed", " with changes"
INTRODUCTION = """\
# Longer tests

The last result of each, written by the runs themselves. What passed at the commit that is checked out is not run again;
`FRESH=1` runs all. `make long-tests` says of each result how many commits ago it was made and which of the files that
its test depends on have changed since; `make test` ends with a warning where some have. `make soak
SAEBYEOK_SOAK_MINUTES=600` makes the soak a long one; cut off, it goes on counting.
"""


@dataclass(frozen=True)
class Row:
    """One test and its last result, as the table has it."""

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
    """The commit that is checked out, and whether files differ from it (the table itself aside)."""
    state = _git("status", "--porcelain", "--", ".", f":!{DOCUMENT.relative_to(ROOT)}")
    return _git("rev-parse", "--short=10", "HEAD") + (CHANGED if state else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def is_fresh() -> bool:
    """Whether nothing of earlier runs counts."""
    return bool(os.environ.get("FRESH")) or commit().endswith(CHANGED)


def name_of(nodeid: str) -> tuple[str, str]:
    """Target and readable name: `tests/soak/test_swaps.py::test_no_one_notices` is `swaps: no one notices`."""
    path, _, function = nodeid.partition("::")
    words = f"{Path(path).stem.removeprefix('test_')}: {function.removeprefix('test_')}".replace("_", " ")
    return TARGETS[Path(path).parent.name], words


def _plain(name: tuple[str, str]) -> tuple[str, str]:
    """The name without parameters."""
    return name[0], name[1].partition("[")[0]


def read_table(text: str) -> dict[tuple[str, str], Row]:
    """The rows of a document, by target and test."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    rows = [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
    return {row.name: row for row in rows}


def write_table(rows: dict[tuple[str, str], Row]) -> str:
    """The document with these rows."""
    table = [COLUMNS, ("---",) * len(COLUMNS), *(rows[name].cells() for name in sorted(rows))]
    return f"{INTRODUCTION}\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


@dataclass
class Book:
    """The plugin: skips what is done, and writes each result down."""

    done: set[str] = field(default_factory=set)
    reports: dict[str, list[pytest.TestReport]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        rows = self._rows()
        names = {_plain(name_of(item.nodeid)) for item in items}
        targets = {target for target, _ in names}
        # A test that is gone has no result.
        self._write({name: row for name, row in rows.items() if _plain(name) in names or row.target not in targets})
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
    def _rows() -> dict[tuple[str, str], Row]:
        return read_table(DOCUMENT.read_text(encoding="utf-8")) if DOCUMENT.exists() else {}

    @staticmethod
    def _write(rows: dict[tuple[str, str], Row]) -> None:
        beside = DOCUMENT.with_name(f".{DOCUMENT.name}")
        beside.write_text(write_table(rows), encoding="utf-8")
        beside.replace(DOCUMENT)


def _row(nodeid: str, reports: list[pytest.TestReport]) -> Row:
    result = "failed" if any(report.failed for report in reports) else PASSED
    skipped = next((report for report in reports if report.skipped), None)
    if skipped is not None:
        # (file, line, "Skipped: reason")
        result = f"skipped: {str(skipped.longrepr[2]).removeprefix('Skipped: ')}"  # type: ignore[index]
    notes = [str(value) for name, value in reports[-1].user_properties if name == "note"]
    return Row(
        *name_of(nodeid),
        result=re.sub(r"[|\s]+", " ", "; ".join([result, *notes])),
        seconds=f"{sum(report.duration for report in reports):.0f}",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=commit(),
        cores=str(os.cpu_count()),
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the book where this module is named: `pytest -p tests.support.long_runs`."""
    config.pluginmanager.register(Book())
