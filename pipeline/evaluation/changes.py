"""The changes between two trainings: data, recipe, code and base model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import ArtifactError
from pipeline.nested import flatten
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import TrainingFigures, ValidationFigures

#: A value that one of the two does not have.
NOTHING = "–"
#: Most dates to name; of more, the first and the last are named.
SHOWN_DAYS = 3


@dataclass(frozen=True)
class Change:
    """A value of the champion that another one replaced."""

    part: Literal["data", "recipe", "code", "base model"]
    name: str
    before: str
    after: str


def changes_since(champion: Artifact, evaluated: Artifact, recipe: Mapping[str, Any]) -> list[Change]:
    """Return the changes from the release `champion` to a new evaluation; `recipe` are all fields of the new recipe.

    Raises ArtifactError if an artifact of the champion cannot be read.
    """
    then = champion.input("evaluated")
    before, after = (item.input("trained") for item in (then, evaluated))
    return [
        *_data_changes(then.input("validated"), evaluated.input("validated")),
        *_differences("recipe", _settings(then, _recipe_of(champion)), _settings(evaluated, recipe)),
        *_differences("code", {"version": before.manifest.code}, {"version": after.manifest.code}),
        *_differences("base model", _base(before), _base(after)),
    ]


def _recipe_of(champion: Artifact) -> Mapping[str, Any]:
    """Return the recipe fields of the decision that promoted a release."""
    store = champion.store
    for ref in store.refs("decide", champion.manifest.recipe):
        try:
            decided = store.open(ref)
        except ArtifactError:
            continue
        own = decided.input_ref("champion") == champion.ref
        if decided.input_ref("evaluated") == champion.input_ref("evaluated") and not own:
            return decided.manifest.fields
    raise ArtifactError(f"store {store.uri} has no decision that promoted {champion.ref}, so its recipe is unknown")


def _settings(evaluated: Artifact, recipe: Mapping[str, Any]) -> dict[str, str]:
    # The title changes no result. Of the behavioural tests, the digest is enough.
    fields = {name: value for name, value in recipe.items() if name not in ("title", "behaviour")}
    digest = evaluated.manifest.fields.get("behaviour")
    values = flatten(fields) | {"behavioural tests": digest and str(digest)[:12]}
    return {name: _shown(value) for name, value in values.items() if value is not None}


def _data_changes(before: Artifact, after: Artifact) -> Iterator[Change]:
    yield from _differences("data", _data(before), _data(after))
    old, new = ({item.date: item.sha256 for item in ValidationFigures.read(side).arrivals} for side in (before, after))
    groups = {
        "arrivals added": new.keys() - old.keys(),
        "arrivals removed": old.keys() - new.keys(),
        "arrivals replaced": {day for day in new.keys() & old.keys() if new[day] != old[day]},
    }
    for name, days in groups.items():
        if days:
            yield Change("data", name, NOTHING, _days(sorted(map(str, days))))


def _data(validated: Artifact) -> dict[str, str]:
    figures = ValidationFigures.read(validated)
    digests = {f"{name} file": str(digest)[:12] for name, digest in validated.manifest.fields.get("files", {}).items()}
    counts = {
        "train rows": figures.train_rows,
        "test rows": figures.test_rows,
        "days of arrivals": len(figures.arrivals),
        "excluded days": len(figures.left_out),
        "quarantined rows": figures.quarantined or 0,
    }
    return {name: f"{count:,}" for name, count in counts.items()} | digests


def _days(days: list[str]) -> str:
    return ", ".join(days) if len(days) <= SHOWN_DAYS else f"{len(days)}, {days[0]} to {days[-1]}"


def _base(trained: Artifact) -> dict[str, str]:
    base = TrainingFigures.read(trained).base
    start = trained.input_ref("start")
    return {
        "base": base.base,
        "revision": (base.revision or NOTHING)[:12],
        "training starts from": start or "the base model",
    }


def _differences(
    part: Literal["data", "recipe", "code", "base model"], before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, NOTHING), after.get(name, NOTHING)
        if old != new:
            yield Change(part, name, old, new)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
