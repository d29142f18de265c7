"""Mutation testing of the modules that decide: `make mutants [MODULE=pipeline/evaluation/promotion_gate.py]`."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.settings import library_environment
from tests.mutants import results, sandbox
from tests.mutants.mutations import Mutation, mutations
from tests.mutants.results import Journal, ModuleScore, Selection
from tests.support.checkout import commit_besides

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("modules.toml")
REASONS = Path(__file__).with_name("reasons.toml")
DOCUMENT = ROOT / "docs" / "results" / "mutants.md"
WORK = ROOT / ".pytest_cache" / "mutants"
#: Copies of the checkout and the tests' files are in memory if possible: the tests of the store flush each file.
MEMORY = Path("/dev/shm")
OPTIONS = ("-x", "-q", "--no-header", "-p", "no:cacheprovider")
#: The unmutated tests may take this long; a mutant may take `SLOWER` times as long as they, and `SPARE` seconds.
LONGEST, SLOWER, SPARE = 600.0, 4.0, 20.0


class Warm:
    """A worker: a process in a copy of the checkout that runs tests in forks of itself."""

    def __init__(self, module: str, selection: Selection, name: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=MEMORY if os.access(MEMORY, os.W_OK) else WORK))
        self.tree = sandbox.copy_checkout(ROOT, self.home / "tree")
        self.target = self.tree / module
        self.source = self.target.read_text(encoding="utf-8")
        self.arguments = [*OPTIONS, *selection.tests, *(f"--deselect={test}" for test in selection.deselect)]
        environment = sandbox.environment(ROOT, self.tree, self.home) | library_environment(self.home)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.worker"],
            cwd=self.tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        first = self._ask(limits={"wall": LONGEST, "cpu": LONGEST, "modules": 1})
        self._expect(first)
        for compiled in (self.target.parent / "__pycache__").glob(f"{self.target.stem}.*.pyc"):
            compiled.unlink()
        self.usual = self._ask(limits={"wall": LONGEST, "cpu": LONGEST}, warm=first["modules"], mutant=True)
        self._expect(self.usual)

    def _expect(self, outcome: dict[str, Any]) -> None:
        if outcome["status"] != results.SURVIVED:
            self.close()
            raise RuntimeError(f"the tests do not pass without a mutant ({outcome['status']}):\n{outcome['tail']}")

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"arguments": self.arguments, "first": "", "known": {}, **request}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def run(self, mutation: Mutation, first: str) -> dict[str, Any]:
        """What becomes of a mutant; the test `first` is asked first."""
        limits = {
            "wall": self.usual["seconds"] * SLOWER + SPARE,
            "cpu": self.usual["cpu"] * SLOWER + SPARE / 4,
        }
        try:
            self.target.write_text(mutation.code, encoding="utf-8")
            return self._ask(limits=limits, first=first, known=self.usual["durations"], mutant=True)
        finally:
            self.target.write_text(self.source, encoding="utf-8")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


@dataclass
class ModuleRun:
    """One module's mutants, and the results so far."""

    module: str
    selection: Selection
    journal: Journal
    waiting: deque[Mutation]
    total: int

    def work(self, name: str) -> None:
        warm = Warm(self.module, self.selection, name)
        print(f"{self.module}: the tests take {warm.usual['seconds']:.1f} s; {len(self.waiting)} mutants to go")
        try:
            while self.waiting:
                self._take(warm, self.waiting.popleft())
        finally:
            warm.close()

    def _take(self, warm: Warm, mutation: Mutation) -> None:
        outcome = warm.run(mutation, self.journal.killers.get(mutation.key, ""))
        status, seconds = outcome["status"], round(outcome["seconds"], 2)
        self.journal.add(mutation.key, status=status, killer=outcome["killer"], seconds=seconds, line=mutation.line)
        if status != results.KILLED:
            print(f"[{len(self.journal.results)}/{self.total}] {status} {self.module}:{mutation.line} {mutation.key}")


def run(module: str, jobs: int, *, match: str, survivors: bool) -> int:
    selection = results.read_selections(TABLE)[module]
    WORK.mkdir(parents=True, exist_ok=True)
    key = results.make_key(ROOT, module, selection)
    journal = Journal.open(WORK / f"{module.replace('/', '-')}.jsonl", key)
    source = (ROOT / module).read_text(encoding="utf-8")
    every = mutations(source)
    asked = [mutation for mutation in every if match in mutation.key]
    if survivors:
        asked = [mutation for mutation in asked if journal.last.get(mutation.key) == results.SURVIVED]
    started = time.monotonic()
    _work(ModuleRun(module, selection, journal, deque(_open(asked, journal)), len(every)), jobs)
    _print_survivors(module, source, asked, journal)
    if _open(asked, journal):
        return 1
    if not _open(every, journal):
        _write_row(module, key, every, journal)
        print(f"{time.monotonic() - started:.0f} s")
    return 0


def _open(asked: list[Mutation], journal: Journal) -> list[Mutation]:
    return [mutation for mutation in asked if mutation.key not in journal.results]


def _work(run: ModuleRun, jobs: int) -> None:
    threads = [threading.Thread(target=run.work, args=(f"w{number}",)) for number in range(jobs if run.waiting else 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _print_survivors(module: str, source: str, asked: list[Mutation], journal: Journal) -> None:
    reasons = results.read_reasons(REASONS).get(module, {})
    for mutation in asked:
        result = journal.results.get(mutation.key)
        if result is None or result["status"] != results.SURVIVED:
            continue
        told = reasons.get(mutation.key)
        print(f"\nsurvived {module}:{mutation.line} {mutation.key}" + (f"\n  named: {told}" if told else ""))
        if not told:
            lines = difflib.unified_diff(source.splitlines(), mutation.code.splitlines(), lineterm="", n=1)
            print("\n".join(f"  {line}" for line in list(lines)[2:]))


def _write_row(module: str, key: str, every: list[Mutation], journal: Journal) -> None:
    reasons = results.read_reasons(REASONS).get(module, {})
    counts = results.count(journal.results[mutation.key]["status"] for mutation in every)
    survivors = [name for name, result in journal.results.items() if result["status"] == results.SURVIVED]
    named = sum(name in reasons for name in survivors)
    row = ModuleScore(
        module,
        str(len(every)),
        str(counts[results.KILLED]),
        str(counts[results.TIMEOUT]),
        str(counts[results.SURVIVED]),
        str(named),
        f"{results.score(counts):.1%}",
        f"{datetime.now(UTC):%Y-%m-%d}",
        commit_besides(ROOT, DOCUMENT),
        key,
    )
    rows = results.read_rows(DOCUMENT.read_text(encoding="utf-8")) | {module: row}
    order = [rows[name] for name in results.read_selections(TABLE) if name in rows]
    DOCUMENT.write_text(results.write_rows(DOCUMENT.read_text(encoding="utf-8"), order), encoding="utf-8")
    print(f"\n{module}: {dict(counts)} of {len(every)}, score {row.score}; {named} survivors named")


def show() -> None:
    """Every module and its score, and whether the module or its tests changed since."""
    rows = results.read_rows(DOCUMENT.read_text(encoding="utf-8"))
    for module, selection in results.read_selections(TABLE).items():
        row = rows.get(module)
        if row is None:
            print(f"{module:24} not run yet")
            continue
        stale = "" if row.key == results.make_key(ROOT, module, selection) else "  changed since"
        print(
            f"{module:24} {row.score:>6}  {row.mutants:>3} mutants, {row.survived} survived, {row.named} named"
            f"  {row.date}{stale}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("module", nargs="?", help="the module to mutate; without it, list modules and scores")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at once (default: 1)")
    parser.add_argument("--match", default="", help="only the mutants whose name contains this, as a function's")
    parser.add_argument("--survivors", action="store_true", help="only the mutants that survived the last time")
    options = parser.parse_args()
    if not options.module:
        show()
        return 0
    return run(options.module, options.jobs, match=options.match, survivors=options.survivors)


if __name__ == "__main__":
    sys.exit(main())
