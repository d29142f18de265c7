"""Results of mutation testing, saved one by one so that a run can be resumed, and listed in docs/results/mutants.md."""

from __future__ import annotations

import ast
import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"
COLUMNS = ("Module", "Mutants", "Killed", "Timed out", "Survived", "Named", "Score", "Date", "Commit", "Key")
START, END = "<!-- mutants: made by `make mutants` -->", "<!-- mutants: end -->"


@dataclass(frozen=True)
class Selection:
    """The tests of one module."""

    tests: tuple[str, ...]
    deselect: tuple[str, ...] = ()


def read_selections(path: Path) -> dict[str, Selection]:
    """Each module's tests, as the table of modules has them."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: Selection(**{key: tuple(value) for key, value in row.items()}) for name, row in table.items()}


def make_key(root: Path, module: str, selection: Selection) -> str:
    """Return a short digest of what a result depends on: the code of the module and of its tests, and the mutators.

    Comments and docstrings do not count, so that a reworded one makes no result stale.
    """
    named = {root / module, root / "tests" / "mutants" / "mutations.py"}
    for test in selection.tests:
        path = root / test.partition("::")[0]
        named |= set(path.rglob("*.py")) if path.is_dir() else {path}
    digest = hashlib.sha256(json.dumps(asdict(selection)).encode())
    for path in sorted(path for path in named if path.is_file()):
        digest.update(f"{path.relative_to(root)}\0{_code(path)}\0".encode())
    return digest.hexdigest()[:10]


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


@dataclass
class Journal:
    """The results of one module, a line each, appended as they come."""

    path: Path
    key: str
    #: Of this key: what became of each mutant.
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Of any key: the test that killed a mutant, which is asked first.
    killers: dict[str, str] = field(default_factory=dict)
    #: Of any key: what became of a mutant last.
    last: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, key: str) -> Journal:
        journal = cls(path, key)
        for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
            # A run that was killed may have left half a line.
            with suppress(json.JSONDecodeError):
                journal._take(json.loads(line))
        return journal

    def add(self, mutant: str, **result: Any) -> None:
        row = {"key": self.key, "mutant": mutant, **result}
        with self.path.open("a", encoding="utf-8") as file:
            # A new line first: half a line may stand there.
            file.write("\n" + json.dumps(row, ensure_ascii=False))
        self._take(row)

    def _take(self, row: dict[str, Any]) -> None:
        if row["key"] == self.key:
            self.results[row["mutant"]] = row
        self.last[row["mutant"]] = row["status"]
        if row["killer"]:
            self.killers[row["mutant"]] = row["killer"]


def read_reasons(path: Path) -> dict[str, dict[str, str]]:
    """Why a survivor is let live, by module and mutant."""
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@dataclass(frozen=True)
class ModuleScore:
    """One module's score, as the table has it."""

    module: str
    mutants: str
    killed: str
    timed_out: str
    survived: str
    named: str
    score: str
    date: str
    commit: str
    key: str

    def cells(self) -> tuple[str, ...]:
        return tuple(asdict(self).values())


def count(statuses: Iterable[str]) -> Counter[str]:
    """How many mutants there are of each status."""
    return Counter(statuses)


def score(counts: Counter[str]) -> float:
    """Share of mutants that were noticed; one that never ends is noticed."""
    return (counts[KILLED] + counts[TIMEOUT]) / max(1, counts.total())


def read_rows(text: str) -> dict[str, ModuleScore]:
    """The rows of the document's table of scores, by module."""
    table = text.partition(START)[2].partition(END)[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    rows = [ModuleScore(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
    return {row.module: row for row in rows}


def write_rows(text: str, rows: Sequence[ModuleScore]) -> str:
    """The document with these rows."""
    table = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    before, _, rest = text.partition(START)
    return f"{before}{START}\n\n{lines}\n{END}{rest.partition(END)[2]}"
