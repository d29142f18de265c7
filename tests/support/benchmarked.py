"""Run benchmarks as users do, on few rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cut import first_rows
from pipeline.config_file import ROOT
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.sample import write_sample


def write_few_rows(directory: Path) -> Path:
    """Write data files of few rows in the format of the published ones, and return their directory."""
    written = write_sample(directory)
    for name in recipe_names():
        spec = load_recipe(name, "embedded").data
        for file, rows in ((written / spec.train, 400), (written / spec.test, 100)):
            file.write_bytes(first_rows(file, rows))
    return written


def said(benchmark: str, *options: str) -> dict[str, Any]:
    """Return the JSON document printed by `python -m benchmarks.BENCHMARK`."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def said_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], benchmark: str, *options: str
) -> dict[str, Any]:
    """Return the same document, run in this process, which has already imported torch."""
    monkeypatch.setattr(sys, "argv", [benchmark, "--json", *options])
    # Some benchmarks set this for their process.
    monkeypatch.setenv("SAEBYEOK_DATA", "")
    import_module(f"benchmarks.{benchmark}").main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
