"""The files of the Great Expectations project that belong to a suite; found without Great Expectations."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import DataError
from pipeline.store.manifest import file_digest

#: Folders that may hold more about a suite, under its name.
OF_A_SUITE = ("checkpoints", "validation_definitions")


def suite_path(project: Path, suite: str) -> Path:
    """Where a suite's JSON is. Raises DataError where it is not."""
    path = project / "expectations" / f"{suite}.json"
    if not path.is_file():
        raise DataError(f"{path} is missing: the recipe's `data.suite` is {suite!r}, so its suite is there")
    return path


def project_digests(project: Path, suite: str) -> dict[str, str]:
    """SHA-256 of each file of the project that decides what `suite` finds and shows, by its path there."""
    own = (suite_path(project, suite), *(project / folder / f"{suite}.json" for folder in OF_A_SUITE))
    files = (project / "great_expectations.yml", *own)
    return {path.relative_to(project).as_posix(): file_digest(path) for path in files if path.is_file()}
