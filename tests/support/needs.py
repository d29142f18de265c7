"""What tests need beyond Python: torch, a server, Airflow or a browser, as markers; and tests that need none of it.

A test gets the marker of each need from the fixtures that it uses. A module whose imports need something says so
itself (`pytestmark = pytest.mark.torch`). `--plain` runs the tests that have no such marker, without importing the
marked modules, and fails each test that needs something without a marker.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

NEEDS = {
    "torch": "trains, or computes with torch",
    "server": "starts a server: the service (also in this process), S3, W&B's or PostgreSQL",
    "airflow": "runs or imports Airflow",
    "browser": "opens a page in Chromium",
}
#: Fixtures that need something; tests that use them need it too.
FIXTURES: Mapping[str, str] = {
    **dict.fromkeys(("classifier", "other_classifier", "cross_encoder", "pair_classifier", "text_scorer"), "torch"),
    **dict.fromkeys(("sentence_encoder", "reviews", "pairs", "forked"), "torch"),
    **dict.fromkeys(("service", "bucket", "tracking_on"), "server"),
    "airflow_home": "airflow",
    "browser": "browser",
}
#: Packages and modules whose import shows a need.
PACKAGES: Mapping[str, str] = {
    **dict.fromkeys(("torch", "transformers"), "torch"),
    **dict.fromkeys(("moto", "tests.support.inprocess"), "server"),
    "airflow": "airflow",
    "playwright": "browser",
}
#: Commands whose start shows a need: consecutive words.
COMMANDS: Mapping[tuple[str, ...], str] = {
    ("-m", "serving"): "server",
    ("wandb-core",): "server",
    ("initdb",): "server",
    ("airflow",): "airflow",
    ("chromium",): "browser",
}
#: Tests of minutes each (`tests.support.long_runs`); none of them is plain.
LONGER = ("faults", "models", "soak", "topology")
#: The expression in pyproject.toml, which leaves out all tests with certain markers.
LEFT_OUT = re.compile(r"not \w+(?: and not \w+)*")
#: The marks of a module: a line, or a list of several lines that ends before an empty line.
MARKED = re.compile(r"^pytestmark\b(?:.|\n(?!\n))*", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plain", action="store_true", help=f"only tests that need none of: {', '.join(NEEDS)}")


def pytest_configure(config: pytest.Config) -> None:
    for name, what in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: {what}")
    if config.getoption("--plain"):
        config.pluginmanager.register(Guard())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip a module whose tests are all left out, before it is imported."""
    found = MARKED.search(collection_path.read_text(encoding="utf-8")) if collection_path.suffix == ".py" else None
    marks = set(re.findall(r"\bmark\.(\w+)", found[0])) if found else set()
    return bool(marks & _left_out(config)) or None


def _left_out(config: pytest.Config) -> set[str]:
    """Return the markers whose tests do not run."""
    expression = config.getoption("markexpr")
    names = set(re.findall(r"not (\w+)", expression)) if LEFT_OUT.fullmatch(expression) else set()
    return names | {*NEEDS, *LONGER} if config.getoption("--plain") else names


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    for item in items:
        for need in sorted({FIXTURES[name] for name in fixtures_of(item) & FIXTURES.keys()}):
            item.add_marker(need)
    if config.getoption("--plain"):
        needy = [item for item in items if needs_of(item)]
        config.hook.pytest_deselected(items=needy)
        items[:] = [item for item in items if not needs_of(item)]


def fixtures_of(item: pytest.Item) -> set[str]:
    """Return the fixtures that a test uses, also through parameters (such as stores on disk and in a bucket)."""
    callspec = getattr(item, "callspec", None)
    parameters = {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()
    return {*getattr(item, "fixturenames", ()), *parameters}


def needs_of(item: pytest.Item | pytest.Module) -> set[str]:
    """Return the needs in the markers of a test or a module."""
    return {mark.name for mark in item.iter_markers()} & NEEDS.keys()


class Guard:
    """Fail tests that need something without its marker, as their imports and commands show."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.known = self._imported()
        sys.addaudithook(self._hear)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        report: Any = yield
        # A marked module given on the command line is imported anyway.
        if isinstance(collector, pytest.Module) and (found := self._found() - needs_of(collector)):
            report.outcome, report.longrepr = "failed", complaint(collector.nodeid, found)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Iterator[None]:
        result: Any = yield
        if found := self._found():
            pytest.fail(complaint(pyfuncitem.nodeid, found), pytrace=False)
        return result

    def _found(self) -> set[str]:
        """Return the needs seen since the last call."""
        imported = self._imported()
        found = {PACKAGES[name] for name in imported - self.known} | self.started
        self.known, self.started = imported, set()
        return found

    @staticmethod
    def _imported() -> set[str]:
        return PACKAGES.keys() & sys.modules.keys()

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            self.started |= needs_of_command(arguments[1])


def needs_of_command(command: Any) -> set[str]:
    """Return the needs that a command line shows: `airflow db migrate` is `airflow`, in any folder."""
    words = [Path(str(word)).name for word in command] if isinstance(command, (list, tuple)) else []
    return {
        need
        for marks, need in COMMANDS.items()
        for start in range(len(words))
        if tuple(words[start : start + len(marks)]) == marks
    }


def complaint(nodeid: str, found: set[str]) -> str:
    """Return the message for the failed test."""
    marks = ", ".join(f"pytest.mark.{need}" for need in sorted(found))
    needed = ", ".join(sorted(found))
    return f"{nodeid} needs {needed} and is not marked so: mark it with {marks} (docs/contributing/testing.md)"
