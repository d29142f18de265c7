"""Age of the results of the longer tests: commits since, and changed files that a test depends on.

`make long-tests` lists them, and a run of the whole suite ends with a line if some are stale. Both are computed
on demand, because they change with each commit.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.config_file import ROOT
from tests.support.checkout import CHANGED, git
from tests.support.long_runs import DOCUMENT, PASSED, TARGETS, LongTestRow, read_table
from tests.support.module_graph import FOLDERS, imports_of

#: Modules that a module starts as separate processes, which imports do not show.
STARTS = {
    "tests.support.cli": {"pipeline.cli"},
    "tests.support.running_service": {"serving.__main__", "serving.service"},
}
#: Data files that each test depends on in addition to its modules: recipes, rules, pages, versions.
DATA = (
    "constraints.txt",
    "expectations",
    *(f"{folder}/**/*.{kind}" for folder in FOLDERS for kind in ("toml", "json", "html", "js")),
)


@dataclass(frozen=True)
class Freshness:
    """A result, the number of commits since (None if its commit is unknown here), and its changed files."""

    row: LongTestRow
    ago: int | None
    changed: tuple[str, ...]

    @property
    def stale(self) -> bool:
        """Whether the result does not apply to the current files."""
        return self.ago is None or bool(self.changed) or self.row.commit.endswith(CHANGED)

    @property
    def failed(self) -> bool:
        """Whether the test failed; a skipped test has not failed."""
        return not self.row.result.startswith((PASSED, "skipped"))


@cache
def dependencies(test: Path) -> frozenset[str]:
    """Return the Python files that a test file consists of (itself included), relative to the checkout."""
    found: set[Path] = set()
    waiting = [test, *(folder / "conftest.py" for folder in (test.parent, test.parent.parent))]
    while waiting:
        path = waiting.pop()
        if path not in found and path.exists():
            found.add(path)
            waiting += _imported(path)
    return frozenset(str(path.relative_to(ROOT)) for path in found)


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    modules = imports_of(ast.parse(path.read_text(encoding="utf-8")), name) | STARTS.get(name, set())
    places = [ROOT / module.replace(".", "/") for module in modules if module.split(".")[0] in (*FOLDERS, "tests")]
    return tuple(path for below in places for path in (below.with_suffix(".py"), below / "__init__.py"))


def check(row: LongTestRow) -> Freshness:
    """Return the freshness of a result."""
    commit = row.commit.removesuffix(CHANGED)
    since = _changed_since(commit)
    if since is None:
        return Freshness(row, None, ())
    return Freshness(row, _commits_since(commit), tuple(sorted(since & (dependencies(_file_of(row)) | _data_files()))))


def _file_of(row: LongTestRow) -> Path:
    (folder,) = (folder for folder, target in TARGETS.items() if target == row.target)
    return ROOT / "tests" / folder / f"test_{row.test.partition(': ')[0].replace(' ', '_')}.py"


@cache
def _changed_since(commit: str) -> frozenset[str] | None:
    """Return the files that differ from a commit, committed or not; None if it is unknown, as in a shallow clone."""
    try:
        return frozenset(git(ROOT, "diff", "--name-only", commit, "--").splitlines())
    except subprocess.CalledProcessError:
        return None


@cache
def _commits_since(commit: str) -> int:
    return int(git(ROOT, "rev-list", "--count", f"{commit}..HEAD"))


@cache
def _data_files() -> frozenset[str]:
    patterns = (f":(glob){pattern}" if "*" in pattern else pattern for pattern in DATA)
    return frozenset(git(ROOT, "ls-files", "--", *patterns).splitlines())


def results() -> list[Freshness]:
    """Return the freshness of each result in docs/results/long-tests.md.

    Raises OSError or CalledProcessError without git.
    """
    git(ROOT, "rev-parse", "HEAD")
    return [check(row) for row in read_table(DOCUMENT.read_text(encoding="utf-8")).values()]


def summary(found: list[Freshness]) -> str:
    """Return one line about failed and stale results; empty if there are none."""
    stale, failed = (sum(getattr(item, what) for item in found) for what in ("stale", "failed"))
    parts = [f"{failed} failed"] * bool(failed)
    parts += [f"{stale} of {len(found)} are older than the files they depend on"] * bool(stale)
    return f"longer tests: {', '.join(parts)}; `make long-tests` lists them" if parts else ""


def main() -> None:
    """Print every result with its age in commits and the files that changed since."""
    for item in results():
        ago = "at a commit that is not known here" if item.ago is None else f"{item.ago} commits ago"
        some = ", ".join(item.changed[:3]) + (", ..." if len(item.changed) > 3 else "")
        since = (
            f"{len(item.changed)} of its files changed since: {some}" if item.changed else "its files are as they were"
        )
        result = item.row.result.partition(";")[0]
        sys.stdout.write(f"{item.row.target.strip('`')}: {item.row.test}: {result}, {ago}; {since}\n")


if __name__ == "__main__":
    main()
