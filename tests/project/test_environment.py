"""Installed versions match the pins, libraries write only below HOME and send nothing, and no file names a machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.settings import library_environment

#: The files and folders at the top of the checkout.
TOP = {
    *(".ci", ".dockerignore", ".editorconfig", ".github", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md"),
    *("CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "benchmarks", "constraints.lock"),
    *("constraints.txt", "dags", "docker", "docs", "examples", "expectations", "mkdocs.yml", "pipeline", "plugins"),
    *("pyproject.toml", "serving", "tests"),
}
#: Imports every library that is known to write below the user's home or to send telemetry, and prints
#: the telemetry setting of each library that has one.
LIBRARIES = """
import importlib.util, json, warnings
warnings.simplefilter("ignore")
import airflow.configuration, bentoml, great_expectations, huggingface_hub.constants, matplotlib.pyplot
import torch, transformers, wandb
from bentoml._internal.utils.analytics import usage_stats

print(json.dumps({
    "airflow": airflow.configuration.conf.getboolean("usage_data_collection", "enabled"),
    "bentoml": not usage_stats.do_not_track(),
    # Its reports went through posthog; a version that brings it back must be looked at.
    "great_expectations": importlib.util.find_spec("posthog") is not None,
    "huggingface": not huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY,
}))
"""


def test_what_is_installed_is_what_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert len(pins) > 100
    different = {}
    for name, pinned in pins.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        # A local label (`+cpu`) names the build, not the version.
        if installed.split("+")[0] != pinned:
            different[name] = (pinned, installed)
    assert different == {}


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.airflow
def test_libraries_write_below_home_and_report_nothing(tmp_path: Path) -> None:
    user, home, work = (tmp_path / name for name in ("user", "home", "work"))
    for directory in (user, home, work):
        directory.mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LD_LIBRARY_PATH")}
    result = subprocess.run(
        [sys.executable, "-c", LIBRARIES],
        env=kept | {"HOME": str(user)} | library_environment(home),
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    reports = json.loads(result.stdout.splitlines()[-1])
    assert reports == dict.fromkeys(("airflow", "bentoml", "great_expectations", "huggingface"), False)
    assert sorted(str(path.relative_to(tmp_path)) for top in (user, work) for path in top.rglob("*")) == []


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Return the files that git tracks."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name]


def test_only_known_files_lie_at_the_top(tracked: list[str]) -> None:
    # What a tool leaves in the checkout must not come along with a commit.
    assert {name.split("/")[0] for name in tracked} == TOP


def test_no_file_names_somebodys_machine(tracked: list[str]) -> None:
    # Put together here, so that this file itself does not contain the names.
    places = re.compile(r"/(?<![\w.-]/)(?:" + "|".join(("wo" + "rk", "Us" + "ers")) + ")/")
    found = []
    for name in tracked:
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace") if (ROOT / name).is_file() else ""
        for match in places.finditer(text):
            number = text.count("\n", 0, match.start()) + 1
            found.append(f"{name}:{number}: {text.split(chr(10))[number - 1].strip()[:100]}")
    assert found == []
