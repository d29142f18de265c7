"""Settings of tests of the data: suites of critical rules only."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.support.suites import without_warnings


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return without_warnings(settings, tmp_path)
