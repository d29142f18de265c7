"""The changes since the champion: data, recipe, code and base model."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError
from pipeline.evaluation.changes import Change, changes_since
from pipeline.recipes.loading import load_recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.figures import BaseIdentity, UsedArrival, ValidationFigures
from tests.support.families import made, training
from tests.support.made_figures import evaluation

RECIPE = load_recipe("nsmc", "embedded").model_dump(mode="json")


def days(*numbers: int, digest: str = "a") -> tuple[UsedArrival, ...]:
    return tuple(UsedArrival(date=date(2026, 3, number), sha256=digest) for number in numbers)


def evaluated(
    store: Store, *, base: str = "mini", start: Artifact | None = None, test: str = "t", **data: Any
) -> Artifact:
    """Publish an evaluation of a model of these data."""
    figures = ValidationFigures(**{"train_rows": 4000, "test_rows": 1000, "sample": False} | data)
    validated = made(store, "validate", figures, fields={"files": {"train": "c" * 64, "test": test * 64}})
    told = training().model_copy(update={"base": BaseIdentity(base=base, revision="0123456789abcdef")})
    trained = made(store, "train", told, roles={"start": "started_from"}, **({"start": start} if start else {}))
    fields = {"behaviour": "b" * 64}
    return made(store, "evaluate", evaluation({}), fields=fields, validated=validated, trained=trained)


def promoted(store: Store, then: Artifact, recipe: dict[str, Any] = RECIPE) -> Artifact:
    """Publish the decision on an evaluation and its release."""
    made(store, "decide", fields=recipe, evaluated=then)
    return made(store, "release", evaluated=then)


def test_equal_runs_have_no_changes(store: Store) -> None:
    assert changes_since(promoted(store, evaluated(store)), evaluated(store), RECIPE | {"title": "Another"}) == []


def test_changes_of_the_data_are_named(store: Store) -> None:
    champion = promoted(store, evaluated(store, arrivals=(*days(1, 2), *days(3, digest="b"))))
    new = evaluated(store, train_rows=5200, test="u", arrivals=days(2, 3, 4, 5, 6, 7), left_out=("one",), quarantined=3)
    assert changes_since(champion, new, RECIPE) == [
        Change("data", "train rows", "4,000", "5,200"),
        Change("data", "days of arrivals", "3", "6"),
        Change("data", "excluded days", "0", "1"),
        Change("data", "quarantined rows", "0", "3"),
        Change("data", "test file", "t" * 12, "u" * 12),
        Change("data", "arrivals added", "–", "4, 2026-03-04 to 2026-03-07"),
        Change("data", "arrivals removed", "–", "2026-03-01"),
        Change("data", "arrivals replaced", "–", "2026-03-03"),
    ]


def test_changes_of_recipe_and_base_model_are_named(store: Store) -> None:
    old = RECIPE | {"train": RECIPE["train"] | {"epochs": 9}, "labels": ["bad", "good"]}
    start = made(store, "train", training())
    champion, new = promoted(store, evaluated(store), old), evaluated(store, base="large", start=start)
    assert changes_since(champion, new, RECIPE) == [
        Change("recipe", "labels", "bad, good", "negative, positive"),
        Change("recipe", "train.epochs", "9", str(RECIPE["train"]["epochs"])),
        Change("base model", "base", "mini", "large"),
        Change("base model", "training starts from", "the base model", start.ref),
    ]


def test_changed_code_is_named(store: Store) -> None:
    then, new = evaluated(store), evaluated(store)
    champion = promoted(store, then)
    file = Path(store.uri) / str(then.input_ref("trained")) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"code": "0.1.0"}))
    assert changes_since(champion, new, RECIPE) == [Change("code", "version", "0.1.0", new.manifest.code)]


def test_recipe_is_that_of_the_promotion(store: Store) -> None:
    old = RECIPE | {"gate": RECIPE["gate"] | {"margin": 0.5}}
    then = evaluated(store)
    champion = promoted(store, then, old)
    # A later run found the champion's own model again, with another recipe.
    made(store, "decide", fields=RECIPE, roles={"champion": "compared_with"}, evaluated=then, champion=champion)
    assert [change.name for change in changes_since(champion, evaluated(store), RECIPE)] == ["gate.margin"]


def test_champion_without_a_decision_is_an_error(store: Store) -> None:
    champion = made(store, "release", evaluated=evaluated(store))
    with pytest.raises(ArtifactError, match="has no decision that promoted"):
        changes_since(champion, evaluated(store), RECIPE)
