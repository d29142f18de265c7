"""The configuration file `saebyeok.toml`. Standard library only, because checks before the installation need it."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.toml_lines import line_of

ROOT = Path(__file__).resolve().parent.parent
#: In a checkout, files of the installation are below it; for an installed package, below the current directory.
BASE = ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()
#: Settings whose value is a path, or a list of paths. In the file they are relative to its directory.
PATHS = ("home", "store", "data", "expectations", "recipes")


@dataclass(frozen=True)
class ConfigFile:
    """The settings in a configuration file, by their names in lower case."""

    path: Path
    text: str
    values: dict[str, Any]

    def place(self, name: str) -> str:
        """Return the file and the line of a setting, for messages."""
        return f"{self.path} line {line_of(self.text, [(name,)])}"


def read_config() -> ConfigFile:
    """Return the configuration file: SAEBYEOK_CONFIG, or `saebyeok.toml` in the checkout or the current directory.

    Without the latter there are no settings. Raises SettingsError if the file cannot be read or is not TOML.
    """
    named = os.environ.get("SAEBYEOK_CONFIG", "").strip()
    path = Path(named).expanduser().resolve() if named else BASE / "saebyeok.toml"
    if not named and not path.is_file():
        return ConfigFile(path, "", {})
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; correct SAEBYEOK_CONFIG") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"{path} is not TOML: {error}") from error
    places = {name: _located(values[name], path.parent) for name in PATHS if isinstance(values.get(name), str | list)}
    return ConfigFile(path, text, values | places)


def _located(value: str | list[Any], directory: Path) -> str:
    """Return paths relative to `directory` as one absolute text; a URI stays as it is."""
    items = [value] if isinstance(value, str) else [str(item) for item in value]
    return os.pathsep.join(
        item if "://" in item or not item else str((directory / Path(item).expanduser()).resolve()) for item in items
    )
