"""Recipe files: find and parse them. Standard library only, because checks before the installation need it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import RecipeError

#: Contains the shipped recipes.
RECIPES = Path(__file__).parent
#: Where recipes are looked for unless SAEBYEOK_RECIPES lists further directories.
SHIPPED = (RECIPES,)
#: Names of recipes. They are part of Airflow's group ids, of store paths and of URLs.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAMING = "name it with lower-case letters, digits and hyphens"


def recipe_directories(own: str) -> tuple[Path, ...]:
    """Return the directories of recipe files: the shipped recipes, then those that `own` (SAEBYEOK_RECIPES) lists."""
    return RECIPES, *(Path(item).expanduser() for item in own.split(os.pathsep) if item.strip())


def recipe_files(directories: Sequence[Path]) -> dict[str, Path]:
    """Map each recipe to its file, by name. Copies, backups and side files have no recipe's name.

    If several directories have a recipe of this name, the last of them wins.
    """
    found = {path.stem: path for path in _toml_files(directories) if NAME.fullmatch(path.stem)}
    return dict(sorted(found.items()))


def misnamed_files(directories: Sequence[Path]) -> list[Path]:
    """Return the TOML files that are ignored because of their name; hidden ones are not listed."""
    files = _toml_files(directories)
    return [path for path in files if not NAME.fullmatch(path.stem) and not path.name.startswith(".")]


def shown(path: Path) -> str:
    """Return the name of a recipe's file for messages: its path below the shipped recipes, or else its whole path."""
    return str(path.relative_to(RECIPES) if path.is_relative_to(RECIPES) else path)


def _toml_files(directories: Sequence[Path]) -> list[Path]:
    return [path for directory in directories for path in sorted(directory.glob("*.toml"))]


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """Return the TOML document in the file `path`; a byte order mark is skipped.

    Raises RecipeError, with `name` as the file's name, if it cannot be read or is not TOML.
    """
    return parse_toml(read_text(path, name), name)


def read_text(path: Path, name: str) -> str:
    """Return the text of the file `path` as `read_toml` parses it. Raises RecipeError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name} is not TOML: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Return the TOML document `text`. Raises RecipeError, with `name` as the file's name, if it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name} is not TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        # Python converts no text with more than 4,300 digits.
        fault = "a number has too many digits" if isinstance(error, ValueError) else "its lists are nested too deeply"
        raise RecipeError(f"{name} cannot be read: {fault}") from error


def published_files(directories: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Map each recipe in `directories` to the names of its train file and, if it names one, its test file.

    An invalid recipe is reported when it is loaded.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, path in recipe_files(directories).items():
        try:
            data = read_toml(path, path.name).get("data")
        except RecipeError:
            continue
        names = (data.get("train"), data.get("test")) if isinstance(data, dict) else ()
        match names:
            case (str(train), str(test)):
                found[name] = (train, test)
            case (str(train), None):
                found[name] = (train,)
    return found
