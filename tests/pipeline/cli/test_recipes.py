"""The commands for recipes: draft, list and check; nothing is overwritten, and problems are named."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.app import app
from pipeline.errors import FAILED, USAGE
from tests.support.news import headlines, write_headlines


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command in this process, with own recipes and data."""
    monkeypatch.setenv("SAEBYEOK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAEBYEOK_RECIPES", str(tmp_path / "recipes"))
    monkeypatch.setenv("SAEBYEOK_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    write_headlines(tmp_path / "data" / "news.csv")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def draft(call: Callable[..., Result], tmp_path: Path) -> Path:
    result = call("new", "news", "--from", str(tmp_path / "data" / "news.csv"))
    assert result.exit_code == 0, result.output
    return tmp_path / "recipes" / "news.toml"


def test_new_recipe_is_listed_and_checked(call: Callable[..., Result], tmp_path: Path) -> None:
    path = draft(call, tmp_path)
    listed = json.loads(call("recipes", "--json").stdout)["recipes"]
    assert [(item["recipe"], item["problem"]) for item in listed] == [
        ("klue-sts", None),
        ("news", None),
        ("nsmc", None),
    ]
    assert listed[1]["file"] == str(path)
    report = json.loads(call("check", "news", "--json").stdout)
    assert report["problems"] == []
    assert sum(report["rows"].values()) == 900
    assert min(report["rows"].values()) > 100


def test_first_recipe_is_written_beside_the_configuration_file(
    call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "saebyeok.toml"
    config.touch()
    monkeypatch.setenv("SAEBYEOK_CONFIG", str(config))
    monkeypatch.delenv("SAEBYEOK_RECIPES")
    assert draft(call, tmp_path).is_file()
    assert tomllib.loads(config.read_text(encoding="utf-8"))["recipes"] == [str(tmp_path / "recipes")]


def test_new_overwrites_nothing(call: Callable[..., Result], tmp_path: Path) -> None:
    path = draft(call, tmp_path)
    before = path.read_text(encoding="utf-8")
    result = call("new", "news", "--from", str(tmp_path / "data" / "news.csv"))
    assert (result.exit_code, path.read_text(encoding="utf-8")) == (USAGE, before)
    assert f"{path}, " in result.stderr
    assert call("new", "My News", "--from", str(tmp_path / "data" / "news.csv")).exit_code == USAGE


def test_broken_recipe_is_listed_with_its_problem(call: Callable[..., Result], tmp_path: Path) -> None:
    path = draft(call, tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("[train]", "[train]\nepoch = 1"), encoding="utf-8")
    (_, news, _) = json.loads(call("recipes", "--json").stdout)["recipes"]
    assert "unknown key `train.epoch`" in news["problem"]
    assert f"news             PROBLEM: {path} line " in call("recipes").stdout
    assert call("check", "news").exit_code == USAGE


def test_file_with_another_name_is_listed_as_ignored(call: Callable[..., Result], tmp_path: Path) -> None:
    path = draft(call, tmp_path)
    for name in ("news copy.toml", "._news.toml"):
        path.with_name(name).write_text(path.read_text())
    copy = str(path.with_name("news copy.toml"))
    assert json.loads(call("recipes", "--json").stdout)["ignored"] == [copy]
    assert f"{copy} is ignored; name it with lower-case letters" in call("recipes").output.replace("\n", "")


def test_check_names_problems_of_suite_and_data(call: Callable[..., Result], tmp_path: Path) -> None:
    draft(call, tmp_path)
    (tmp_path / "recipes" / "expectations" / "news.json").write_text("{", encoding="utf-8")
    lines = [f'"{row["제목"]}",{"정치" if n else "날씨"}' for n, row in enumerate(headlines(300))]
    unlabelled = [f"{n}번째 글," for n in range(40)]
    (tmp_path / "data" / "news.csv").write_text("\n".join(["제목,분야", *lines, "x,y,z", *unlabelled]), "utf-8")
    result = call("check", "news", "--json")
    assert result.exit_code == FAILED
    problems = "\n".join(json.loads(result.stdout)["problems"])
    for part in (
        "news.json is not JSON",
        "train rows are unreadable, or have no text or no valid label; every `분야` is one of",
        "data.min_train_rows asks for 576",
        "no train row has the label 경제",
    ):
        assert part in problems
    (tmp_path / "data" / "news.csv").unlink()
    assert "news.csv is missing" in call("check", "news").stdout


def test_floors_are_written_once(call: Callable[..., Result], tmp_path: Path) -> None:
    path = draft(call, tmp_path)
    path.write_text(path.read_text(encoding="utf-8") + "\n[gate]\nmargin = 0.1\n", encoding="utf-8")
    result = call("propose-floors", "news", "--write")
    assert result.exit_code == USAGE
    assert "has a table [gate] already; copy the values into it" in result.stderr
