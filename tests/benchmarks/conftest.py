"""Tiny data for the benchmarks: enough to run them, too little to measure anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sample import write_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data files in the format of the published ones."""
    directory = tmp_path_factory.mktemp("data")
    write_sample(directory)
    return directory
