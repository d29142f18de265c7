"""The sample's own thresholds: what learnt nothing does not pass. That honest models do is in `tests/e2e`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.artifacts import Artifact
from pipeline.checklist import passes as cases_passed
from pipeline.data import read_split
from pipeline.decide import decide
from pipeline.job import Job, open_store
from pipeline.metrics import compute_metrics
from pipeline.recipe import Recipe, load_recipe
from pipeline.releases import Decision
from pipeline.sample import write_sample
from pipeline.settings import load_settings
from tests.tiny import Road

pytestmark = pytest.mark.torch

NAMES = ("nsmc", "klue-sts")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("gate") / "sample")


def recipe_of(name: str) -> Recipe:
    """The recipe that a user of the sample gets, as it is."""
    return load_recipe(name, "embedded", sample=True)


def rows_of(name: str, sample: Path) -> dict[str, pd.DataFrame]:
    recipe = recipe_of(name)
    return {"train": read_split(recipe, sample, "train"), "test": read_split(recipe, sample, "test")}


def shuffled(rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The same texts and the same labels, which no longer belong together."""
    train = rows["train"]
    labels = train["label"].sample(frac=1.0, random_state=11).to_numpy()
    return rows | {"train": train.assign(label=labels)}


def of_one_class(name: str, rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The same texts, all with the label that most of them have, or with the mean of the scores."""
    labels = rows["train"]["label"]
    common = labels.mode()[0] if recipe_of(name).kind == "classification" else labels.mean()
    return rows | {"train": rows["train"].assign(label=common)}


def decision_on(
    name: str, rows: dict[str, pd.DataFrame], home: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Decision, Artifact]:
    """Train the real recipe on `rows` and let the gate decide."""
    settings = load_settings().model_copy(update={"home": home})
    recipe = load_recipe(name, "embedded", sample=True, overrides=overrides)
    road = Road(Job(recipe, settings, open_store(settings), run="gate"), rows)
    decided = decide(road.job, road.evaluated, None)
    return Decision.model_validate_json((decided.path / "decision.json").read_bytes()), road.evaluated


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_shuffled_labels_fails(name: str, sample: Path, tmp_path: Path) -> None:
    rows = shuffled(rows_of(name, sample))
    assert sorted(rows["train"]["label"]) == sorted(rows_of(name, sample)["train"]["label"])
    decision, evaluated = decision_on(name, rows, tmp_path / "home")
    assert not decision.promote
    first = recipe_of(name).metrics[0]
    # Far below, not just below.
    assert evaluated.figures["test"][first]["high"] < recipe_of(name).gate.floors[first], evaluated.figures["test"]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_majority_class_fails(name: str, sample: Path, tmp_path: Path) -> None:
    # Once over the rows is enough to learn that.
    rows = of_one_class(name, rows_of(name, sample))
    decision, evaluated = decision_on(name, rows, tmp_path / "home", {"train.epochs": 1})
    answers = pd.read_parquet(evaluated.path / "test.parquet")["prediction"]
    assert np.ptp(answers) < 1e-6, "it has learnt to say always the same"
    assert not decision.promote
    first = recipe_of(name).metrics[0]
    assert not evaluated.figures["test"][first]["high"] >= recipe_of(name).gate.floors[first]
    assert "floor" in {check.kind for check in decision.checks if not check.passed}


def passes(recipe: Recipe, labels: pd.Series, answers: np.ndarray) -> bool:
    found = compute_metrics(recipe, labels.to_numpy(), answers)
    return all(found[metric] >= floor for metric, floor in recipe.gate.floors.items())


@pytest.mark.parametrize("name", NAMES)
def test_answering_always_the_same_fails(name: str, sample: Path) -> None:
    recipe, rows = recipe_of(name), rows_of(name, sample)
    train, labels = rows["train"]["label"], rows["test"]["label"]
    constants = [0, 1] if recipe.kind == "classification" else [train.mean(), 0.0, 3.0, 5.0]
    for constant in constants:
        assert not passes(recipe, labels, np.full(len(labels), constant))
    assert passes(recipe, labels, labels.to_numpy())


@pytest.mark.parametrize("name", NAMES)
def test_answering_always_the_same_fails_the_behavioural_bounds_too(name: str, sample: Path) -> None:
    recipe, train = recipe_of(name), rows_of(name, sample)["train"]["label"]
    constants = [0, 1] if recipe.kind == "classification" else [train.mean(), 0.0, 2.0, 3.0, 4.0, 5.0]
    for constant in constants:
        shares: dict[str, list[bool]] = {}
        for test in recipe.behaviour.tests:
            shape = (len(recipe.behaviour.questions(test)), 1 if test.kind == "minimum" else 2)
            answers = np.full(shape, constant)
            if recipe.kind == "classification":
                answers = np.eye(len(recipe.labels))[answers]
            shares.setdefault(test.capability, []).extend(cases_passed(recipe, test, answers))
        missed = [name for name, bound in recipe.gate.behaviour.items() if np.mean(shares[name]) < bound]
        assert missed, (constant, {name: np.mean(items) for name, items in shares.items()})


@pytest.mark.parametrize("name", NAMES)
def test_answering_by_length_alone_fails(name: str, sample: Path) -> None:
    # What a generator might give away: how long a text is, or by how much two differ.
    recipe, rows = recipe_of(name), rows_of(name, sample)

    def length(table: pd.DataFrame) -> np.ndarray:
        first = table["text"].str.len().to_numpy(float)
        return -np.abs(first - table["text_pair"].str.len().to_numpy(float)) if "text_pair" in table else first

    known, asked = length(rows["train"]), length(rows["test"])
    labels = rows["train"]["label"].to_numpy(float)
    slope, intercept = np.polyfit(known, labels, 1)
    line = slope * asked + intercept
    answers = (line > labels.mean()).astype(int) if recipe.kind == "classification" else line
    assert not passes(recipe, rows["test"]["label"], answers)
