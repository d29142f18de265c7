"""Files of a suite, next to a recipe or in the project, found without importing Great Expectations."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.recipes.files import recipe_directories
from pipeline.recipes.schema import Recipe
from pipeline.recipes.standard_suite import standard_suite
from pipeline.settings import Settings
from pipeline.store.manifest import file_digest

#: Folders of the project with optional further files of a suite, named like it.
OF_A_SUITE = ("checkpoints", "validation_definitions")
#: Never copied: local results of manual runs, and Python files.
LEFT_OUT = ("uncommitted", "__pycache__", "__init__.py")


def suite_name(recipe: Recipe) -> str:
    """Return the name of a recipe's suite; the standard suite has the recipe's name."""
    return recipe.data.suite or recipe.name


def named_suite(settings: Settings, recipe: Recipe) -> Path | None:
    """Return the path of the suite that a recipe names; None for the standard suite. Raises as `suite_path`."""
    return suite_path(settings, recipe.data.suite) if recipe.data.suite else None


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


def read_suite(path: Path) -> dict[str, Any]:
    """Return the JSON document of a suite; a byte order mark is skipped.

    Raises DataError unless it has `expectations`, a list of objects with at least one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    rules = document.get("expectations") if isinstance(document, dict) else None
    if not rules:
        raise DataError(f"{path} has no `expectations`, so it would accept any file; add at least one expectation")
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise DataError(f"{path}: `expectations` is not a list of objects; write each as an object with a `type`")
    return dict(document)


def write_project(settings: Settings, recipe: Recipe, target: Path) -> Path:
    """Copy the Great Expectations project to `target`, with the suite of `recipe`; return the copy of the suite.

    A suite that is not in the project has no checkpoint of its own. Raises DataError if the suite is missing.
    """
    name, project = suite_name(recipe), settings.expectations
    shutil.copytree(project, target, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    copy = target / "expectations" / f"{name}.json"
    path = named_suite(settings, recipe)
    if path is None or not path.is_relative_to(project):
        for folder in OF_A_SUITE:
            (target / folder / f"{name}.json").unlink(missing_ok=True)
        copy.write_bytes(path.read_bytes() if path else _standard(recipe))
    return copy


def suite_digests(settings: Settings, recipe: Recipe) -> dict[str, str]:
    """Map each file that affects the result of a recipe's suite, by its path in the project, to its SHA-256."""
    name, project, path = suite_name(recipe), settings.expectations, named_suite(settings, recipe)
    places = ["great_expectations.yml"]
    if path and path.is_relative_to(project):
        places += [f"{folder}/{name}.json" for folder in OF_A_SUITE]
    digests = {place: file_digest(project / place) for place in places if (project / place).is_file()}
    own = file_digest(path) if path else hashlib.sha256(_standard(recipe)).hexdigest()
    return digests | {f"expectations/{name}.json": own}


def _standard(recipe: Recipe) -> bytes:
    suite = standard_suite(suite_name(recipe), recipe.text_columns, len(recipe.labels))
    return json.dumps(suite, ensure_ascii=False).encode()
