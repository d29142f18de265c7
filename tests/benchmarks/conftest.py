"""Tiny data for the benchmarks: enough to run them, too little to measure anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.benchmarked import write_few_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data files in the format of the published ones."""
    return write_few_rows(tmp_path_factory.mktemp("data"))
