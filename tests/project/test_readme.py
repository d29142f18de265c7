"""The README: the settings, commands and links in it exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli.app import app
from pipeline.config_file import ROOT
from pipeline.recipes.loading import recipe_names
from pipeline.settings import Settings

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> set[str]:
    group: Any = typer.main.get_command(app)
    return set(group.commands)


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"SAEBYEOK_[A-Z_]+", TEXT))
    assert named <= {f"SAEBYEOK_{name.upper()}" for name in Settings.model_fields}


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"^saebyeok ([a-z-]+)", TEXT, re.MULTILINE)) | set(re.findall(r"`saebyeok ([a-z-]+)", TEXT))
    assert len(named) > 5
    assert named <= commands()


def test_every_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^|\s)make ([a-z-]+)", TEXT)) <= targets


def test_every_recipe_is_named() -> None:
    assert [name for name in recipe_names() if name not in TEXT] == []


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^):]+)\)", TEXT))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (Path(ROOT) / link).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:docker|pipeline|expectations|docs)/[\w./-]+)`", TEXT))))
def test_every_path_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).exists()
