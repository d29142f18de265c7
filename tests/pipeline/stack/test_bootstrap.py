"""The installation: its preconditions, when it is needed, and its progress."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.settings import ROOT
from pipeline.stack import bootstrap


def bootstrap_run(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the first step of `make up` in a separate process that cannot install packages."""
    environment = {**os.environ, "SAEBYEOK_HOME": str(tmp_path / "home"), **variables}
    command = [sys.executable, "-S", "-m", "pipeline.stack.bootstrap", "--up"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_bootstrap_without_packages_stops_at_taken_port(tmp_path: Path, taken_port: int) -> None:
    result = bootstrap_run(tmp_path, SAEBYEOK_AIRFLOW_URL=f"http://127.0.0.1:{taken_port}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"saebyeok: port {taken_port} on 127.0.0.1 cannot be used")
    assert "Traceback" not in result.stderr


def test_bootstrap_stops_at_missing_data(tmp_path: Path) -> None:
    result = bootstrap_run(tmp_path, SAEBYEOK_DATA=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith(f"saebyeok: {tmp_path} lacks ")


def test_make_says_which_python_it_needs() -> None:
    result = subprocess.run(
        ["make", "venv", "PYTHON=/bin/false"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "saebyeok: Python 3.11 is required" in result.stderr
    assert "make venv PYTHON=/path/to/python3.11" in result.stderr


def test_stamp_tells_whether_installation_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("a")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    before = bootstrap.stamp()
    assert bootstrap.stamp() == before
    (tmp_path / "constraints.txt").write_text("b")
    assert bootstrap.stamp() != before


def test_pips_log_becomes_progress() -> None:
    log = ""
    said = []
    for line in (
        "Obtaining file:///checkout",
        "Collecting apache-airflow<3.4,>=3.3 (from saebyeok==0.1.0)",
        "  Downloading apache_airflow-3.3.2-py3-none-any.whl (12 kB)",
        "Processing /wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl (from saebyeok==0.1.0)",
        "  Downloading ruamel.yaml-0.19.1-py3-none-any.whl (1.1 MB)",
        "Installing collected packages: a, b, c",
    ):
        log += f"{line}\n"
        said.append(bootstrap.pip_progress(log, lambda: 2))
    assert said == [
        "resolving the packages",
        "fetched 0 packages, at apache-airflow",
        "fetched 0 packages, at apache-airflow",
        "fetched 1 packages, at torch",
        "fetched 2 packages, at ruamel-yaml (1.1 MB)",
        "unpacked 2 of 3 packages (the longest step)",
    ]
