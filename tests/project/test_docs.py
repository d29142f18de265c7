"""The README and docs: the tests that they name exist, and decision records have distinct numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config_file import ROOT

#: Decision records and the changelog are history, and may name tests that are gone. Reference pages have keys such as
#: `test_rows`.
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name not in ("decisions", "reference"))
DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "reference" / "gates.md", *PAGES]
DEFINED = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)


def names_in(path: Path) -> set[str]:
    """Return the names of a test file: its own and those of its tests."""
    return {path.stem, *DEFINED.findall(path.read_text(encoding="utf-8"))}


def missing(text: str) -> list[str]:
    """Return the names of tests and test files in `text` that do not exist."""
    everything = {name for path in (ROOT / "tests").rglob("*.py") for name in names_in(path)}
    gone = [path for path in re.findall(r"tests/[\w/]+\.py", text) if not (ROOT / path).is_file()]
    gone += [name for name in re.findall(r"(?<![\w/.])test_\w+", text) if name not in everything]
    pairs = [(ROOT / path, name) for path, name in re.findall(r"(tests/[\w/]+\.py)::(test_\w+)", text)]
    return gone + [f"{path.name}::{name}" for path, name in pairs if path.is_file() and name not in names_in(path)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_documents_name_exist(document: Path) -> None:
    assert missing(document.read_text(encoding="utf-8")) == []


def test_missing_tests_are_found_by_path_name_and_place() -> None:
    text = "`tests/gone.py`, `test_gone`, tests/project/test_docs.py::test_page_matches_code"
    assert missing(text) == ["tests/gone.py", "test_gone", "test_docs.py::test_page_matches_code"]


def test_decision_records_are_numbered_by_their_files() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [int(record.name.split("-")[0]) for record in records]
    assert numbers == list(range(1, len(numbers) + 1))
    titles = [record.read_text(encoding="utf-8").splitlines()[0] for record in records]
    assert [title.split(".")[0] for title in titles] == [f"# {number}" for number in numbers]
