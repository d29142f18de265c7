"""The README and docs: the tests, settings, commands, targets and paths that they name exist."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli.app import app
from pipeline.config_file import ROOT
from pipeline.recipes.loading import recipe_names
from pipeline.settings import Settings

#: Decision records and the changelog are history, and may name tests that are gone. Reference pages have keys such as
#: `test_rows`.
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name not in ("decisions", "reference"))
GUIDES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
DOCUMENTS = [*GUIDES, ROOT / "docs" / "reference" / "gates.md", *PAGES]
FOLDERS = "benchmarks|dags|docker|docs|examples|expectations|pipeline|plugins|serving|tests"
DEFINED = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)


@cache
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


def named(pattern: str, flags: int = 0) -> dict[str, str]:
    """Return the matches of `pattern` in all documents, each with the name of a document."""
    return {
        found: document.name
        for document in [*DOCUMENTS, *(ROOT / "docs" / "reference").glob("*.md")]
        for found in re.findall(pattern, document.read_text(encoding="utf-8"), flags)
    }


def test_settings_that_documents_name_exist() -> None:
    settings = {f"SAEBYEOK_{name.upper()}" for name in Settings.model_fields}
    found = named(r"SAEBYEOK_[A-Z_]*[A-Z]")
    assert len(found) > 30
    # Read by tests, and by the command of the client.
    read = {"SAEBYEOK_SOAK_MINUTES", "SAEBYEOK_TEST_KILLS", "SAEBYEOK_TEST_SEED", "SAEBYEOK_API_KEY"}
    assert found.keys() - settings == read


def test_commands_that_documents_name_exist() -> None:
    group: Any = typer.main.get_command(app)
    found = named(r"`saebyeok ([a-z][a-z-]*)")
    assert len(found) > 20
    assert {name: page for name, page in found.items() if name not in group.commands} == {}


def test_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = named(r"`make ([a-z-]+)")
    assert len(found) > 10
    assert {name: page for name, page in found.items() if name not in targets} == {}


def test_paths_that_documents_name_exist() -> None:
    found = named(rf"`((?:{FOLDERS})/[\w./-]+)`")
    assert len(found) > 50
    # The reader creates it.
    found.pop("docker/.env")
    assert {path: page for path, page in found.items() if not (ROOT / path).exists()} == {}


def test_paths_that_configuration_names_exist() -> None:
    kinds = ("*.yml", "*.yaml", "*.toml", "*.sh", "*.Dockerfile", "env.example")
    files = [*map(ROOT.joinpath, ("Makefile", "mkdocs.yml", "pyproject.toml", ".github/workflows/test.yml"))]
    files += [
        path
        for folder in ("docker", "expectations", "pipeline")
        for kind in kinds
        for path in (ROOT / folder).rglob(kind)
    ]
    # Not after a dot or a slash: these are parts of other paths.
    found = {
        (path.name, named)
        for path in files
        for named in re.findall(rf"(?<![\w./$-])(?:{FOLDERS})/[\w./-]+\.\w+", path.read_text(encoding="utf-8"))
    }
    assert len(found) > 20
    # The reader creates the first. The second is an old name in a comment of the suites' project: to correct it would
    # change the key of every validation, so that each store would train all its models again.
    known = {"docker/.env", "pipeline/suites.py"}
    assert [pair for pair in sorted(found) if pair[1] not in known and not (ROOT / pair[1]).exists()] == []


def test_readme_names_every_shipped_recipe() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in recipe_names() if f"`{name}`" not in text] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_missing_tests_are_found_by_path_name_and_place() -> None:
    text = "`tests/gone.py`, `test_gone`, tests/project/test_docs.py::test_page_matches_code"
    assert missing(text) == ["tests/gone.py", "test_gone", "test_docs.py::test_page_matches_code"]


def test_decision_records_are_numbered_by_their_files() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [int(record.name.split("-")[0]) for record in records]
    assert numbers == list(range(1, len(numbers) + 1))
    titles = [record.read_text(encoding="utf-8").splitlines()[0] for record in records]
    assert [title.split(".")[0] for title in titles] == [f"# {number}" for number in numbers]


@pytest.mark.parametrize("package", ["pipeline", "serving"])
def test_architecture_page_has_the_layers_in_order(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (item["layers"] for item in contracts if item.get("containers") == [package])
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition(f"| Layer of `{package}/` |")[2].partition("\n\n")[0]
    for row, layer in zip([line.split(" | ")[0] for line in table.splitlines()[2:]], layers, strict=True):
        named, modules = set(re.findall(r"`(\w+)`", row)), set(layer.split(" | "))
        # Of the many small modules at the bottom, the page names some.
        assert named <= modules if "..." in row else named == modules
