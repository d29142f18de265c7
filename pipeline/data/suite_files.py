"""Files of a suite, next to a recipe or in the project, found without importing Great Expectations."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import DataError
from pipeline.recipes.files import recipe_directories
from pipeline.settings import Settings
from pipeline.store.manifest import file_digest

#: Folders of the project with optional further files of a suite, named like it.
OF_A_SUITE = ("checkpoints", "validation_definitions")


def suite_path(settings: Settings, suite: str) -> Path:
    """Return the path of a suite's JSON file: in `expectations/` next to the recipes, or else in the project.

    If several directories of recipes have it, the last of them wins. Raises DataError if it is missing.
    """
    places = [*reversed(recipe_directories(settings.recipes)), settings.expectations]
    paths = [place / "expectations" / f"{suite}.json" for place in places]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise DataError(f"the recipe's `data.suite` is {suite!r}: correct it, or add {paths[0]} or {paths[-1]}")
    return found


def suite_digests(settings: Settings, suite: str) -> dict[str, str]:
    """Map the place in the project of each file that affects the result of `suite` to its SHA-256."""
    project, path = settings.expectations, suite_path(settings, suite)
    places = ["great_expectations.yml"]
    if path.is_relative_to(project):
        places += [f"{folder}/{suite}.json" for folder in OF_A_SUITE]
    files = {place: project / place for place in places} | {f"expectations/{suite}.json": path}
    return {place: file_digest(file) for place, file in files.items() if file.is_file()}
