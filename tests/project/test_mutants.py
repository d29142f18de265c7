"""The mutation testing of `make mutants`: its mutations, its stored results and its report."""

from __future__ import annotations

import ast
import os
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.config_file import ROOT
from tests.mutants.results import (
    END,
    START,
    Journal,
    ModuleScore,
    Selection,
    count,
    make_key,
    read_reasons,
    read_rows,
    score,
    write_rows,
)
from tests.mutants.worker import wait

if TYPE_CHECKING:
    from tests.mutants.mutations import Mutation

MODULES = ROOT / "tests" / "mutants" / "modules.toml"
REASONS = ROOT / "tests" / "mutants" / "reasons.toml"
ROW = ModuleScore("pipeline/a.py", "4", "2", "1", "1", "0", "75.0%", "2026-01-02", "0123456789", "abcdef0123")


def mutations(source: str) -> list[Mutation]:
    """Return the mutations of a module; only the worker that runs these tests imports libcst."""
    from tests.mutants import mutations

    return mutations.mutations(source)


def changed(line: str) -> set[str]:
    """Return the mutations of a line of a function."""
    source = f'def f(a, b):\n    """Text."""\n    {line}\n'
    return {mutation.code.splitlines()[2].strip() for mutation in mutations(source)}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("return a >= 0.5", {"return a > 0.5", "return a >= 0.45", "return a >= 0.55", "return None"}),
        ("return a and b", {"return a or b", "return (a)", "return (b)"}),
        ("if a: raise ValueError(b)", {"if False: raise ValueError(b)", "if True: raise ValueError(b)", "if a: pass"}),
        ("call(a, strict=True)", {"pass", "call(a, strict=False)", "call(a, )"}),
        ("return [x for x in a if x]", {"return [x for x in a]"}),
        ("return sorted(a)", {"return a"}),
    ],
)
def test_mutations_change_what_decides(line: str, wanted: set[str]) -> None:
    assert wanted <= changed(line)


@pytest.mark.parametrize("line", ['log.info("text", a)', 'b: "int"', "pass"])
def test_mutations_leave_what_only_says(line: str) -> None:
    assert changed(line) == set()


def test_mutations_swap_neighbours_and_break_handlers() -> None:
    source = "def f():\n    sync()\n    rename()\n    try:\n        g()\n    except OSError:\n        h = 1\n"
    codes = {mutation.code for mutation in mutations(source)}
    assert source.replace("    sync()\n    rename()", "    rename()\n    sync()") in codes
    assert source.replace("h = 1", "raise") in codes


def test_mutations_of_module_are_valid_and_distinct() -> None:
    source = (ROOT / "dags" / "approval.py").read_text(encoding="utf-8")
    found = mutations(source)
    assert len({mutation.key for mutation in found}) == len({mutation.code for mutation in found}) == len(found) > 30
    assert all(ast.parse(mutation.code) for mutation in found)


def test_truncated_journal_resumes_without_last_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    journal = Journal.open(file, "key")
    journal.add("one", status="killed", killer="t.py::test_a")
    with file.open("a") as writer:
        writer.write('\n{"key": "key", "mut')
    again = Journal.open(file, "key")
    assert again.results.keys() == {"one"}
    again.add("two", status="survived", killer="")
    assert Journal.open(file, "key").results.keys() == {"one", "two"}


def test_journal_of_another_key_keeps_only_who_killed(tmp_path: Path) -> None:
    Journal.open(tmp_path / "a.jsonl", "old").add("one", status="killed", killer="t.py::test_a")
    journal = Journal.open(tmp_path / "a.jsonl", "new")
    assert journal.results == {}
    assert journal.killers == {"one": "t.py::test_a"}


def test_key_changes_with_the_module_and_its_tests(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    module, test = tmp_path / "a.py", tmp_path / "tests" / "test_a.py"
    keys = []
    for texts in (("1", "1"), ("2", "1"), ("2", "2"), ("2", "2")):
        for file, text in zip((module, test), texts, strict=True):
            file.write_text(text)
        keys.append(make_key(tmp_path, "a.py", Selection(("tests/test_a.py::test_x",))))
    assert len(set(keys[:3])) == 3
    assert keys[2] == keys[3]


def test_mutant_that_hangs_is_killed_at_its_limit() -> None:
    with subprocess.Popen(["sleep", "600"]) as hanging:
        assert wait(hanging.pid, 0.01) is None
    with subprocess.Popen(["false"]) as failing:
        status = wait(failing.pid, 600.0)
        assert status is not None
        assert os.waitstatus_to_exitcode(status) == 1


def test_score_counts_time_outs_as_noticed() -> None:
    assert score(count(["killed", "timeout", "survived", "killed"])) == 0.75


def test_every_reason_belongs_to_a_listed_module() -> None:
    found = read_reasons(REASONS)
    assert found.keys() <= tomllib.loads(MODULES.read_text(encoding="utf-8")).keys()
    assert all(reason for named in found.values() for reason in named.values())


def test_written_table_is_read_back_unchanged() -> None:
    page = f"# Page\n\n{START}\n{END}\n\nafter\n"
    written = write_rows(page, [ROW])
    assert read_rows(written) == {ROW.module: ROW}
    assert written.startswith("# Page\n")
    assert written.endswith("after\n")
    assert write_rows(written, [ROW]) == written
