"""Load a recipe: its TOML file, a profile, the sample's tables and overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import RecipeError
from pipeline.nested import flatten
from pipeline.recipes.files import NAME, NAMING, SHIPPED, parse_toml, read_text, recipe_files, shown
from pipeline.recipes.schema import Recipe
from pipeline.recipes.strict_model import explain
from pipeline.toml_lines import line_of

#: Fields that no recipe file may set.
RUN_FIELDS = {"profile", "sample", "overridden"}


def recipe_names(directories: Sequence[Path] = SHIPPED) -> tuple[str, ...]:
    """Return the names of the recipes in `directories`, sorted."""
    return tuple(recipe_files(directories))


def find_recipe(name: str, directories: Sequence[Path] = SHIPPED) -> Path:
    """Return the file of recipe `name`. Raises RecipeError, with the existing names, if there is no such recipe."""
    found = recipe_files(directories)
    if name in found:
        return found[name]
    if not NAME.fullmatch(name) and any((directory / f"{name}.toml").exists() for directory in directories):
        raise RecipeError(f"{name}.toml is not the name of a recipe file: {NAMING}")
    raise RecipeError(f"no recipe {name!r}; the recipes are: {', '.join(found)}")


def load_recipe(
    name: str,
    profile: str,
    *,
    sample: bool = False,
    overrides: dict[str, Any] | None = None,
    directories: Sequence[Path] = SHIPPED,
) -> Recipe:
    """Load recipe `name` with `profile`; `overrides` maps dotted keys to values (`train.epochs`: 2).

    Later tables override earlier ones: the recipe; `[profiles.<profile>]`; if `sample` is true, `[sample]`, then
    `[profiles.<profile>.sample]`; `overrides`. A recipe without profiles is the same in each profile. Raises
    RecipeError with file, line, key and allowed values.
    """
    path = find_recipe(name, directories)
    file = shown(path)
    text = read_text(path, file)
    document = parse_toml(text, file)
    if document.setdefault("name", name) != name:
        raise RecipeError(f"{file}: `name` must be {name!r}, like the file name (it is {document['name']!r})")
    document.setdefault("title", name)
    merged = _merged(file, document, profile, sample)
    for key, value in (overrides or {}).items():
        merged = _merge(merged, _nested(key, value))
    if unknown := RUN_FIELDS & merged.keys():
        raise RecipeError(f"{file}: unknown key `{unknown.pop()}`; remove it: the run sets it")
    if "behaviour" in merged:
        raise RecipeError(f"{file}: unknown key `behaviour`; move the behavioural tests to behaviour/{path.name}")
    tests = path.parent / "behaviour" / path.name
    cases = read_text(tests, shown(tests)) if tests.is_file() else ""
    merged["behaviour"] = parse_toml(cases, shown(tests))
    try:
        set_by_run = {"profile": profile, "sample": sample, "overridden": tuple(flatten(overrides or {}))}
        return Recipe.model_validate(merged | set_by_run)
    except ValidationError as error:
        tables = (("profiles", profile, "sample"), ("sample",), ("profiles", profile), ())[0 if sample else 2 :]
        line_at = _line_finder(text, cases, tables, overrides or {})
        raise RecipeError(explain(error, Recipe, file, {"behaviour": shown(tests)}, line_at)) from error


def _line_finder(
    recipe: str, behaviour: str, tables: Sequence[tuple[str, ...]], overrides: Mapping[str, Any]
) -> Callable[[tuple[str, ...]], int | None]:
    """Return the function from a key to its line in the TOML text of a recipe, or in that of its behavioural tests.

    `tables` are those of the recipe that may set it, the winning one first. A key in `overrides` has no line.
    """

    def line_at(key: tuple[str, ...]) -> int | None:
        dotted = f"{'.'.join(key)}."
        if not key or any(dotted.startswith(f"{given}.") or f"{given}.".startswith(dotted) for given in overrides):
            return None
        if key[0] == "behaviour" and len(key) > 1:
            return line_of(behaviour, [key[1:]])
        return line_of(recipe, [(*table, *key) for table in tables])

    return line_at


def _merged(file: str, document: dict[str, Any], profile: str, sample: bool) -> dict[str, Any]:
    base = dict(document)
    profiles = _pop_table(file, base, "profiles")
    sample_table = _pop_table(file, base, "sample")
    if profiles and profile not in profiles:
        raise RecipeError(f"{file} has no profile {profile!r}; it has: {', '.join(sorted(profiles))}")
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
