"""The installation: its preconditions, when it is needed, and its progress."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.stack import bootstrap
from pipeline.stack.installer import Installer
from pipeline.stack.terminal import Progress


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
    assert "saebyeok: Python 3.11, 3.12 or 3.13 is required" in result.stderr
    assert "make venv PYTHON=/path/to/python3.12" in result.stderr


def test_make_lets_python_keep_bytecode() -> None:
    # Without it, each process of the stack and of the tests would compile torch and Airflow again.
    shown = subprocess.run(
        ["make", "--eval", "environment: ; @env", "environment"],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PYTHONDONTWRITEBYTECODE" not in shown.stdout


def make_up(run: str) -> subprocess.CompletedProcess[str]:
    """Return the output of a dry run of `make up`, without the variables of a make that runs these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "up", f"RUN={run}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("run", "option"), [("", ""), ("yes", " --run"), ("no", " --no-run")])
def test_make_passes_the_choice_of_a_run_on(run: str, option: str) -> None:
    assert make_up(run).stdout.rstrip().endswith(f"-m pipeline.stack.bootstrap --up{option}")


def test_make_refuses_another_choice_of_a_run() -> None:
    assert "RUN is never: set yes or no" in make_up("never").stderr


def test_stamp_tells_whether_installation_is_current(tmp_path: Path) -> None:
    for name in bootstrap.FILES:
        (tmp_path / name).write_text("a")
    installer = Installer(tmp_path, tmp_path / "venv", tmp_path / "log", Progress(io.StringIO()))
    before = bootstrap.stamp(installer)
    assert bootstrap.stamp(installer) == before
    assert bootstrap.stamp(replace(installer, torch=False)) != before
    (tmp_path / "constraints.lock").write_text("b")
    assert bootstrap.stamp(installer) != before
