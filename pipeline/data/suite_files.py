"""Files of a suite in the Great Expectations project, found without importing Great Expectations."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import DataError
from pipeline.store.manifest import file_digest

#: Folders with optional further files of a suite, named like it.
OF_A_SUITE = ("checkpoints", "validation_definitions")


def suite_path(project: Path, suite: str) -> Path:
    """Return the path of a suite's JSON file. Raises DataError if it is missing."""
    path = project / "expectations" / f"{suite}.json"
    if not path.is_file():
        raise DataError(f"{path} is missing; the recipe's `data.suite` is {suite!r}: correct it or add this file")
    return path


def project_digests(project: Path, suite: str) -> dict[str, str]:
    """Map the path of each project file that affects the result of `suite` to its SHA-256."""
    own = (suite_path(project, suite), *(project / folder / f"{suite}.json" for folder in OF_A_SUITE))
    files = (project / "great_expectations.yml", *own)
    return {path.relative_to(project).as_posix(): file_digest(path) for path in files if path.is_file()}
