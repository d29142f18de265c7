"""Recipe files: find and parse them. Standard library only, because checks before the installation need it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pipeline.errors import RecipeError

#: Contains the shipped recipes.
RECIPES = Path(__file__).parent
#: Names of recipes. They are part of Airflow's group ids, of store paths and of URLs.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAMING = "name it with lower-case letters, digits and hyphens"


def recipe_files(directory: Path) -> list[Path]:
    """Return the recipe files in `directory` by name. Copies, backups and side files have no recipe's name."""
    return [path for path in _toml_files(directory) if NAME.fullmatch(path.stem)]


def misnamed_files(directory: Path) -> list[Path]:
    """Return the TOML files in `directory` that are ignored because of their name; hidden ones are not listed."""
    files = _toml_files(directory)
    return [path for path in files if not NAME.fullmatch(path.stem) and not path.name.startswith(".")]


def _toml_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.toml"))


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """Return the TOML document in the file `path`; a byte order mark is skipped.

    Raises RecipeError, with `name` as the file's name, if it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name} is not TOML: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name} is not TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        # Python converts no text with more than 4,300 digits.
        fault = "a number has too many digits" if isinstance(error, ValueError) else "its lists are nested too deeply"
        raise RecipeError(f"{name} cannot be read: {fault}") from error


def published_files(directory: Path) -> dict[str, tuple[str, str]]:
    """Map each recipe in `directory` to the names of its train and test file; recipes that do not name both are absent.

    An invalid recipe is reported when it is loaded.
    """
    found = {}
    for path in recipe_files(directory):
        try:
            data = read_toml(path, path.name).get("data")
        except RecipeError:
            continue
        names = (data.get("train"), data.get("test")) if isinstance(data, dict) else ()
        match names:
            case (str(train), str(test)):
                found[path.stem] = (train, test)
    return found
