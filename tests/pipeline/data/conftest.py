"""Settings of tests of the data: suites of critical rules only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.settings import Settings


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Return settings of a copy of the suites without the rules that only warn, which are half of them."""
    suites = tmp_path / "suites"
    shutil.copytree(ROOT / "expectations", suites)
    for suite in (suites / "expectations").glob("*.json"):
        document = json.loads(suite.read_text(encoding="utf-8"))
        document["expectations"] = [rule for rule in document["expectations"] if rule["severity"] == "critical"]
        suite.write_text(json.dumps(document), encoding="utf-8")
    return settings.model_copy(update={"expectations": suites})
