"""The trigger form: what it offers, and what its schema lets through."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.recipe import recipe_names
from pipeline.settings import ROOT

FIELDS = (
    "recipes",
    "profile",
    "base_model",
    "epochs",
    "learning_rate",
    "batch_size",
    "max_length",
    "seed",
    "approval",
    "force",
)


@pytest.fixture(scope="module")
def nightly(airflow_home: Path) -> ModuleType:
    sys.path.append(str(ROOT / "dags"))
    try:
        return importlib.import_module("nightly_retrain")
    finally:
        sys.path.remove(str(ROOT / "dags"))


def test_each_field_has_a_title_and_a_sentence(nightly: ModuleType) -> None:
    assert tuple(nightly.PARAMS) == FIELDS
    for param in nightly.PARAMS.values():
        assert param.schema["title"]
        assert param.description.endswith(".")


def test_untouched_it_keeps_what_the_recipes_say(nightly: ModuleType) -> None:
    values = {name: param.resolve() for name, param in nightly.PARAMS.items()}
    assert values.pop("recipes") == list(recipe_names())
    assert (values.pop("approval"), values.pop("force")) == (False, False)
    assert set(values.values()) == {None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipes", ["nsmc"]),
        ("profile", "full"),
        ("base_model", "klue/bert-base"),
        ("epochs", 100),
        ("learning_rate", 5e-5),
        ("learning_rate", "5e-5"),
        ("learning_rate", "0.00005"),
        ("batch_size", 1),
        ("max_length", 512),
        ("seed", 0),
        ("force", True),
    ],
)
def test_sound_values_pass(nightly: ModuleType, field: str, value: Any) -> None:
    assert nightly.PARAMS[field].resolve(value) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipes", []),
        ("recipes", ["nsmc", "nsmc"]),
        ("recipes", ["imdb"]),
        ("recipes", "nsmc"),
        ("profile", "big"),
        ("base_model", ""),
        ("epochs", 0),
        ("epochs", 101),
        ("epochs", 1.5),
        ("learning_rate", 0),
        ("learning_rate", 0.2),
        ("learning_rate", "fast"),
        ("learning_rate", "-1e-5"),
        ("batch_size", 0),
        ("max_length", 7),
        ("seed", -1),
        ("seed", 2**32),
        ("force", "yes"),
    ],
)
def test_bad_values_are_refused(nightly: ModuleType, field: str, value: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        nightly.PARAMS[field].resolve(value)
