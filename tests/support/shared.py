"""Directories that take long to fill, such as trained models: filled once for all workers of a test run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

#: Names the directory for a test run that another test run starts.
VARIABLE = "SAEBYEOK_TEST_SHARED"


def shared_directory(factory: pytest.TempPathFactory) -> Path:
    """Return the directory that all workers share."""
    base = factory.getbasetemp()
    default = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    directory = Path(os.environ.get(VARIABLE, default))
    directory.mkdir(exist_ok=True)
    return directory


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return the directory `name` after the first caller has filled it with `build(directory)`. Never change it."""
    from filelock import FileLock

    built = shared_directory(factory) / name
    with FileLock(f"{built}.lock"):
        if not built.exists():
            unfinished = built.with_name(f".{name}")
            # A build that failed leaves files.
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished)
            unfinished.rename(built)
    return built
