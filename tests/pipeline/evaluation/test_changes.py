"""The changes since the champion: data, recipe, code and base model."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
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
    store: Store,
    *,
    base: str = "mini",
    revision: str | None = "0123456789abcdef",
    start: Artifact | None = None,
    test: str = "t",
    behaviour: str | None = "fedcba9876543210",
    **data: Any,
) -> Artifact:
    """Publish an evaluation of a model of these data."""
    figures = ValidationFigures(**{"train_rows": 4000, "test_rows": 1000, "sample": False} | data)
    validated = made(store, "validate", figures, fields={"files": {"train": "c" * 64, "test": test * 64}})
    told = training().model_copy(update={"base": BaseIdentity(base=base, revision=revision)})
    trained = made(store, "train", told, roles={"start": "started_from"}, **({"start": start} if start else {}))
    fields = {"behaviour": behaviour} if behaviour else {}
    return made(store, "evaluate", evaluation({}), fields=fields, validated=validated, trained=trained)


def promoted(store: Store, then: Artifact, recipe: dict[str, Any] = RECIPE) -> Artifact:
    """Publish the decision on an evaluation and its release."""
    made(store, "decide", fields=recipe, evaluated=then)
    return made(store, "release", evaluated=then)


def test_equal_runs_have_no_changes(store: Store) -> None:
    # Of the behavioural tests, the evaluation's digest counts.
    recipe = RECIPE | {"title": "Another", "behaviour": {"tests": []}}
    assert changes_since(promoted(store, evaluated(store)), evaluated(store), recipe) == []


def test_changes_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        Change("data", "train rows", "1", "2").name = "test rows"  # type: ignore[misc]


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
    champion = promoted(store, evaluated(store), old)
    new = evaluated(store, base="large", revision="f" * 40, start=start, behaviour="a" * 64)
    assert changes_since(champion, new, RECIPE) == [
        Change("recipe", "labels", "bad, good", "negative, positive"),
        Change("recipe", "train.epochs", "9", str(RECIPE["train"]["epochs"])),
        Change("recipe", "behavioural tests", "fedcba987654", "a" * 12),
        Change("base model", "base", "mini", "large"),
        Change("base model", "revision", "0123456789ab", "f" * 12),
        Change("base model", "training starts from", "the base model", start.ref),
    ]


def test_missing_value_is_a_dash(store: Store) -> None:
    champion = promoted(store, evaluated(store, revision=None), RECIPE | {"score_range": [0, 5]})
    new = evaluated(store, behaviour=None, arrivals=days(1, 2, 3))
    assert changes_since(champion, new, RECIPE | {"score_range": None}) == [
        Change("data", "days of arrivals", "0", "3"),
        Change("data", "arrivals added", "–", "2026-03-01, 2026-03-02, 2026-03-03"),
        Change("recipe", "score_range", "0, 5", "–"),
        Change("recipe", "behavioural tests", "fedcba987654", "–"),
        Change("base model", "revision", "–", "0123456789ab"),
    ]


def test_other_and_damaged_decisions_are_skipped(store: Store) -> None:
    then = evaluated(store)
    champion = promoted(store, then)
    made(store, "decide", fields={"name": "another"}, evaluated=evaluated(store))
    later = made(store, "decide", fields={}, evaluated=evaluated(store))
    (Path(store.uri) / later.ref / "manifest.json").write_text("{")
    assert changes_since(champion, evaluated(store), RECIPE) == []


def test_changed_code_is_named(store: Store) -> None:
    then, new = evaluated(store), evaluated(store)
    champion = promoted(store, then)
    file = Path(store.uri) / str(then.input_ref("trained")) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"code": "an older one"}))
    assert changes_since(champion, new, RECIPE) == [Change("code", "version", "an older one", new.manifest.code)]


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
