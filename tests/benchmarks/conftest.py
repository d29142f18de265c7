"""Data for the benchmarks, far too few to measure anything by."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sample import write_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as the published ones."""
    directory = tmp_path_factory.mktemp("data")
    write_sample(directory)
    return directory
