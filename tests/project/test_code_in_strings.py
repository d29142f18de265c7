"""Code in strings of the longer tests, which other processes run: the modules and names that it imports exist.

These tests run seldom, so nobody would notice for long that a module has another name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent

from pipeline.config_file import ROOT
from tests.support.needs import LONGER

OWN = ("benchmarks", "dags", "pipeline", "serving", "tests")
#: The value of an f-string, which could be any name.
VALUE = "value_"
SLOW = re.compile(r"\bmark\.slow\b")
FOLDERS = {*LONGER, "e2e", "support"}


@cache
def names(path: Path) -> frozenset[str]:
    """Return every name that a module defines, assigns or imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.split(".")[0])
    return frozenset(found)


def exists(dotted: str) -> bool:
    """Return whether a dotted path is a module, or a name in one."""
    if dotted.split(".")[0] not in OWN or VALUE in dotted:
        return True
    place = ROOT / dotted.replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").is_file():
        return True
    module, _, name = dotted.rpartition(".")
    place = ROOT / module.replace(".", "/")
    path = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    return path is not None and name in names(path)


def imports_in_strings(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted paths that code in strings imports."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in parts)
        if "import " not in text:
            continue
        try:
            code = ast.parse(dedent(text))
        except SyntaxError:
            continue
        for found in ast.walk(code):
            if isinstance(found, ast.ImportFrom) and found.level == 0:
                yield from (f"{found.module}.{alias.name}" for alias in found.names)
            if isinstance(found, ast.Import):
                yield from (alias.name for alias in found.names)


def runs_seldom(path: Path, text: str) -> bool:
    """Return whether a file has tests that `make test` leaves out, or that need a GPU, or code for such tests."""
    folder = path.relative_to(ROOT / "tests").parts[0]
    return folder in FOLDERS or bool(SLOW.search(text)) or path.name == "test_gpu.py"


def test_imports_of_code_in_strings_exist() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    found = {path: imports_in_strings(ast.parse(text)) for path, text in texts.items() if runs_seldom(path, text)}
    missing = [(path.name, dotted) for path, imports in found.items() for dotted in imports if not exists(dotted)]
    assert missing == []


def test_a_renamed_module_is_noticed() -> None:
    lines = ["from pipeline import fit", "from pipeline.job import Jobs, {JOB}", "import pipeline.stages.train"]
    code = f"CODE = f{chr(10).join(lines)!r}"
    found = imports_in_strings(ast.parse(code))
    assert [dotted for dotted in found if not exists(dotted)] == ["pipeline.fit", "pipeline.job.Jobs"]
