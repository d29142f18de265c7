"""Search space: the recipe fields that a search varies, and their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from pipeline.errors import RecipeError
from pipeline.job import Job, full_keys
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.overrides import parse_value
from pipeline.recipes.schema import SCRATCH, Recipe

#: Ratio of upper to lower end from which a range is searched on a log scale. Below 10 because 3e-4 / 3e-5 rounds down.
WIDE = 9.99
#: Tables that may be searched. Data, splits and gates are fixed, because trials on different rows are not comparable.
SEARCHABLE = ("train.", "model.")
#: Fields that are never searched: a lucky seed does not make a better recipe.
NEVER = ("train.seed",)
EXAMPLES = "--search train.learning_rate=1e-4..1e-3 or --search train.epochs=1,2,3"


@dataclass(frozen=True)
class Span:
    """The numbers from `low` to `high`, both included; integers if both ends are. With `log`, on a log scale."""

    low: float
    high: float
    log: bool = False

    def holds(self, value: Any) -> bool:
        """Return whether `value` is in the range."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log scale)' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """A fixed set of numbers or texts."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Return whether `value` is one of the choices."""
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.values)


#: Dotted recipe fields and the values to try for each.
Space = Mapping[str, Span | Choices]


@dataclass(frozen=True)
class Search:
    """The search space over the recipe of `job`, which was opened with `overrides` (dotted keys)."""

    job: Job
    overrides: Mapping[str, Any]
    space: Space

    @property
    def own(self) -> dict[str, Any]:
        """Return the recipe's own values of the searched fields."""
        return {key: _own_value(self.job.recipe, key) for key in self.space}

    def job_with(self, values: Mapping[str, Any]) -> Job:
        """Return the job with `values` in its recipe. Raises RecipeError if the values are not valid together."""
        return replace(self.job, recipe=_load(self.job.recipe, self.overrides, values))


def open_search(job: Job, overrides: Mapping[str, Any], items: Sequence[str]) -> Search:
    """Return a search over the fields in `items` (`KEY=LOW..HIGH`, `KEY=A,B,C`), or over the default fields if empty.

    `overrides` are the ones that `job` was opened with. Raises RecipeError with the invalid item and a valid form.
    """
    known = full_keys(overrides)
    return Search(job, known, _read_space(items, job.recipe, known) or default_space(job.recipe))


def _load(recipe: Recipe, overrides: Mapping[str, Any], values: Mapping[str, Any]) -> Recipe:
    return load_recipe(recipe.name, recipe.profile, sample=recipe.sample, overrides={**overrides, **values})


def _own_value(recipe: Recipe, key: str) -> Any:
    """Return the recipe's value of a field, or None if the field or its table is absent."""
    try:
        return attrgetter(key)(recipe)
    except AttributeError:
        return None


def default_space(recipe: Recipe) -> Space:
    """Return the default search space: the hyperparameters of fine-tuning, around the recipe's own values."""
    train = recipe.train
    batches = {max(1, train.batch_size // 2), train.batch_size, min(2 * train.batch_size, 4096)}
    space: dict[str, Span | Choices] = {
        "train.learning_rate": Span(_short(train.learning_rate / 4), _short(min(train.learning_rate * 4, 0.1)), True),
        "train.epochs": Span(max(1, train.epochs // 2), min(2 * train.epochs, 100)),
        "train.batch_size": Choices(tuple(sorted(batches))),
        "train.warmup": Span(0.0, max(0.2, train.warmup)),
        "train.weight_decay": Span(0.0, max(0.1, train.weight_decay)),
    }
    if recipe.model.base != SCRATCH and train.tune == "full":
        # Layer decay protects pretrained layers, which a model from scratch lacks.
        space["train.layer_decay"] = Span(min(0.8, train.layer_decay), 1.0)
    return space


def _read_space(items: Sequence[str], recipe: Recipe, overrides: Mapping[str, Any]) -> Space:
    space: dict[str, Span | Choices] = {}
    for item in items:
        key, separator, text = (part.strip() for part in item.partition("="))
        try:
            if not (separator and key and text):
                raise RecipeError(f"is not KEY=LOW..HIGH or KEY=A,B,C; write {EXAMPLES}")
            if key in space:
                raise RecipeError(f"`{key}` is given twice; name each field once")
            if not key.startswith(SEARCHABLE) or key in NEVER:
                raise RecipeError(f"`{key}` cannot be searched; name fields of `train` (except `seed`) or `model`")
            space[key] = field = _read_field(text, _own_value(recipe, key))
            for value in (field.low, field.high) if isinstance(field, Span) else field.values:
                # Check the value against the recipe's own rules.
                _load(recipe, overrides, {key: value})
        except RecipeError as error:
            raise RecipeError(f"--search {item}: {error}") from error
    return space


def _read_field(text: str, own: Any) -> Span | Choices:
    # A text may contain dots itself, such as a base model in `../models`.
    if ".." in text and not isinstance(own, str):
        return _read_span(text, whole=isinstance(own, int))
    return _read_choices(text, own)


def _read_span(text: str, *, whole: bool) -> Span:
    low, high = (parse_value(part.strip()) for part in text.split("..", 1))
    if whole and not (type(low) is type(high) is int):
        raise RecipeError("the field takes whole numbers, so both ends must be whole numbers; write KEY=1..4")
    if not all(type(end) in (int, float) and math.isfinite(end) for end in (low, high)):
        raise RecipeError(f"both ends must be numbers; write {EXAMPLES}")
    if low >= high:
        raise RecipeError(f"the lower end must be below the upper end; write KEY=LOW..HIGH ({EXAMPLES})")
    log = low > 0 and high / low >= WIDE
    return Span(low, high, log) if whole else Span(float(low), float(high), log)


def _read_choices(text: str, own: Any) -> Choices:
    values = [parse_value(part.strip()) for part in text.split(",")]
    if isinstance(own, float):
        values = [float(value) if type(value) is int else value for value in values]
    # True and 1 are equal, but the recipe's rules accept only one of them.
    chosen = tuple(dict.fromkeys(map(_scalar, values)))
    if len(chosen) < 2:
        raise RecipeError("a single value leaves nothing to search; use --set, or name several values: KEY=A,B,C")
    return Choices(chosen)


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise RecipeError(f"{value!r} is neither a number nor a text; only fields with a single value can be searched")
    return value


def _short(number: float) -> float:
    return float(f"{number:.3g}")
