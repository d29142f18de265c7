"""The shipped expectation suites, shorter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config_file import ROOT
from pipeline.settings import Settings


def without_warnings(settings: Settings, directory: Path) -> Settings:
    """Return settings of a copy of the suites, in `directory`, without the rules that only warn: half of them."""
    return _shortened(settings, directory, lambda rule: rule["severity"] == "critical")


def with_rules(settings: Settings, directory: Path, *descriptions: str) -> Settings:
    """Return settings of a copy of the suites, in `directory`, with these rules only."""
    return _shortened(settings, directory, lambda rule: rule["description"] in descriptions)


def _shortened(settings: Settings, directory: Path, kept: Callable[[dict[str, Any]], bool]) -> Settings:
    """Each rule takes Great Expectations about as long, however few the rows are."""
    suites = directory / "suites"
    shutil.copytree(ROOT / "expectations", suites)
    for suite in (suites / "expectations").glob("*.json"):
        document = json.loads(suite.read_text(encoding="utf-8"))
        document["expectations"] = [rule for rule in document["expectations"] if kept(rule)]
        suite.write_text(json.dumps(document), encoding="utf-8")
    return settings.model_copy(update={"expectations": suites})
