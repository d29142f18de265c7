"""Benchmarks as their users call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from pipeline.settings import ROOT


def said(benchmark: str, *options: str) -> dict[str, Any]:
    """The one JSON document of `python -m benchmarks.BENCHMARK`."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
