"""Load a recipe: its TOML file, a profile, the sample's tables and overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import RecipeError
from pipeline.recipes.files import NAME, NAMING, RECIPES, read_toml, recipe_files
from pipeline.recipes.schema import Recipe
from pipeline.recipes.strict_model import explain


def recipe_names(directory: Path = RECIPES) -> tuple[str, ...]:
    """Return the names of the recipes in `directory`, sorted."""
    return tuple(path.stem for path in recipe_files(directory))


def check_name(name: str, directory: Path = RECIPES) -> None:
    """Raise RecipeError unless there is a recipe `name`; the message names the ones that there are."""
    path = directory / f"{name}.toml"
    if not NAME.fullmatch(name) and path.exists():
        raise RecipeError(f"{path.name} is not the name of a recipe file: {NAMING}")
    if not path.exists():
        raise RecipeError(f"no recipe {name!r}; there are: {', '.join(recipe_names(directory))}")


def load_recipe(
    name: str,
    profile: str,
    *,
    sample: bool = False,
    overrides: dict[str, Any] | None = None,
    directory: Path = RECIPES,
) -> Recipe:
    """Load recipe `name` with `profile`; `overrides` maps dotted keys to values (`train.epochs`: 2).

    Later tables win: the recipe, `[profiles.<profile>]`, if `sample` is set `[sample]` and
    `[profiles.<profile>.sample]`, then `overrides`. Raises RecipeError with file, key and allowed values.
    """
    check_name(name, directory)
    path = directory / f"{name}.toml"
    document = read_toml(path, path.name)
    if document.get("name") != name:
        raise RecipeError(f"{path.name}: `name` must be {name!r}, like the file name (it is {document.get('name')!r})")
    merged = _merged(path.name, document, profile, sample)
    for key, value in (overrides or {}).items():
        merged = _merge(merged, _nested(key, value))
    if unknown := {"profile", "sample"} & merged.keys():
        raise RecipeError(f"{path.name}: unknown key `{unknown.pop()}`: the run sets profile and sample")
    if "behaviour" in merged:
        raise RecipeError(f"{path.name}: unknown key `behaviour`: behavioural tests belong in behaviour/{path.name}")
    tests = directory / "behaviour" / path.name
    merged["behaviour"] = read_toml(tests, f"behaviour/{path.name}") if tests.is_file() else {}
    try:
        return Recipe.model_validate(merged | {"profile": profile, "sample": sample})
    except ValidationError as error:
        own = {"behaviour": f"behaviour/{path.name}"}
        raise RecipeError(explain(error, Recipe, path.name, own)) from error


def _merged(file: str, document: dict[str, Any], profile: str, sample: bool) -> dict[str, Any]:
    base = dict(document)
    profiles = _pop_table(file, base, "profiles")
    sample_table = _pop_table(file, base, "sample")
    if profile not in profiles:
        raise RecipeError(f"{file} has no profile {profile!r}; it has: {', '.join(sorted(profiles)) or 'none'}")
    profile_table = dict(_pop_table(file, profiles, profile))
    profile_sample = _pop_table(file, profile_table, "sample")
    merged = _merge(base, profile_table)
    return _merge(_merge(merged, sample_table), profile_sample) if sample else merged


def _pop_table(file: str, document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.pop(key, {})
    if not isinstance(table, dict):
        raise RecipeError(f"{file}: `{key}` must be a table (it is {table!r})")
    return dict(table)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    head, _, rest = dotted.partition(".")
    return {head: _nested(rest, value) if rest else value}
