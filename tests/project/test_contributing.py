"""Files for contributors: the workflow and the hooks run the same commands as a developer."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from pipeline.config_file import ROOT


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_workflow_runs_the_script_of_ci() -> None:
    (job,) = read(".github/workflows/test.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_hooks_run_tools_of_the_environment_and_download_nothing() -> None:
    hooks = [hook for repository in read(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        tool = hook["entry"].split()[0]
        assert tool.startswith(".venv/bin/")
        assert tool in makefile
        assert (Path(sys.executable).parent / Path(tool).name).exists()


def test_hooks_name_tests_that_exist() -> None:
    entries = " ".join(hook["entry"] for hook in read(".pre-commit-config.yaml")["repos"][0]["hooks"])
    assert [word for word in entries.split() if word.startswith("tests/") and not (ROOT / word).is_file()] == []


def test_package_invents_no_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "urls" not in project
    assert "Typing :: Typed" in project["classifiers"]
    assert (ROOT / "pipeline" / "py.typed").is_file()
