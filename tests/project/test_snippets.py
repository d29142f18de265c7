"""Code blocks of the guides: each is run by a test or says why not, and the real parsers accept it."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.command_line import leaf_commands
from pipeline.cli.app import app
from pipeline.config_file import ROOT
from tests.support.snippets import GUIDES, Snippet, snippets

SNIPPETS = snippets(*GUIDES)
#: Also the commands of the other pages must exist, with their options.
EVERYWHERE = snippets(*GUIDES, *sorted((ROOT / "docs").rglob("*.md")))
LEAVES = dict(leaf_commands())
COMMANDS = sorted({command for found in EVERYWHERE if found.language == "sh" for command in found.commands})
#: A test that runs or parses the block, or a reason.
NOTE = re.compile(r"(?:run|parsed) by tests/|not run: \w{2,}")


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
def test_snippet_names_its_test_or_the_reason(snippet: Snippet) -> None:
    assert NOTE.match(snippet.note), "put `<!-- run by tests/... -->` or `<!-- not run: REASON -->` above the block"
    named = re.findall(r"tests/[\w/.]+\w", snippet.note)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("snippet", [found for found in SNIPPETS if found.language != "sh"], ids=str)
def test_snippet_is_valid(snippet: Snippet) -> None:
    parse: dict[str, Any] = {
        "python": lambda code: compile(code, str(snippet), "exec"),
        "toml": tomllib.loads,
        "json": json.loads,
    }
    parse[snippet.language](snippet.code)


def parse(command: str) -> None:
    """Parse a command with the parser of the command line, without running it. Raises TyperException."""
    words = shlex.split(command)
    name = next((name for name in (" ".join(words[:size]) for size in (3, 2)) if name in LEAVES), None)
    if name is None:
        raise typer.BadParameter(f"no such command: {command}")
    LEAVES[name].make_context(name, words[len(name.split()) :], resilient_parsing=False)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("saebyeok ")])
def test_command_is_parsed(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(word) for word in shlex.split(command)[1:] if "=" not in word and ":" not in word):
        if path.suffix in (".csv", ".gz", ".toml", ".txt"):
            path.touch()
        elif len(path.parts) > 1:
            path.mkdir(parents=True)
    parse(command)


@pytest.mark.parametrize("command", ["saebyeok fly", "saebyeok run nsmc --fast", "saebyeok predict", "saebyeok run"])
def test_wrong_command_is_not_parsed(command: str) -> None:
    with pytest.raises(typer.TyperException):
        parse(command)


def test_every_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for command in COMMANDS if "make " in command for word in re.findall(r"make ([a-z-]+)", command)}
    assert {"up", "down"} <= named <= targets


def test_groups_are_not_commands() -> None:
    group: Any = typer.main.get_command(app)
    assert "arrivals" in group.commands
    assert "saebyeok arrivals accept" in dict(leaf_commands())
    assert "saebyeok arrivals" not in dict(leaf_commands())
