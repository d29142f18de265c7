"""The trigger forms: their fields, and the values that their schemas accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.job import OVERRIDES
from pipeline.recipes.loading import recipe_names

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk import ParamsDict


@pytest.fixture(scope="module")
def form(bag: BundleDagBag) -> ParamsDict:
    """Return the form of the nightly DAG."""
    found: ParamsDict = bag.dags["nightly_retrain"].params
    return found


def test_form_offers_what_the_command_line_offers(form: ParamsDict) -> None:
    # The fields for the whole run.
    assert set(form) == {*OVERRIDES, "recipes", "profile", "approval", "force"}
    for name in form:
        param = form.get_param(name)
        assert param.schema["title"]
        assert param.description.endswith(" Default: the recipe's value." if name in OVERRIDES else ".")


def test_form_proposes_values(form: ParamsDict) -> None:
    recipes = form.get_param("recipes").schema
    assert recipes["examples"] == recipes["items"]["enum"] == list(recipe_names())
    assert recipes["values_display"]["nsmc"] == "Sentiment of Korean film reviews (NSMC)"
    assert form.get_param("profile").schema["enum"] == ["embedded", "full", None]
    for proposal in form.get_param("learning_rate").schema["examples"]:
        assert 0 < float(proposal) < 0.1


def test_untouched_form_keeps_what_the_recipes_say(form: ParamsDict) -> None:
    values = {name: form.get_param(name).resolve() for name in form}
    assert values.pop("recipes") == list(recipe_names())
    assert (values.pop("approval"), values.pop("force")) == (False, False)
    assert set(values.values()) == {None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipes", ["nsmc"]),
        ("profile", "full"),
        ("profile", "embedded"),
        ("base_model", "klue/bert-base"),
        ("epochs", 1),
        ("epochs", 100),
        ("learning_rate", 5e-5),
        ("learning_rate", "5e-5"),
        ("learning_rate", "2.5E-5"),
        ("learning_rate", "0.00005"),
        ("learning_rate", ".05"),
        ("learning_rate", 0.1),
        ("batch_size", 1),
        ("batch_size", 4096),
        ("max_length", 8),
        ("max_length", 512),
        ("seed", 0),
        ("seed", 2**32 - 1),
        ("approval", True),
        ("force", True),
    ],
)
def test_sound_value_passes(form: ParamsDict, field: str, value: Any) -> None:
    assert form.get_param(field).resolve(value) == value


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
        ("learning_rate", "5e5"),
        ("learning_rate", "1"),
        ("learning_rate", "5e-5 or so"),
        ("batch_size", 0),
        ("batch_size", 4097),
        ("max_length", 7),
        ("max_length", 513),
        ("seed", -1),
        ("seed", 2**32),
        ("approval", None),
        ("force", "yes"),
    ],
)
def test_bad_value_is_refused(form: ParamsDict, field: str, value: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        form.get_param(field).resolve(value)


def test_rollback_form_takes_a_deployment_or_nothing(bag: BundleDagBag) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    (name,) = bag.dags["rollback"].params
    param = bag.dags["rollback"].params.get_param(name)
    assert (name, param.resolve(), param.resolve(1), param.resolve(10**6)) == ("deployment", None, 1, 10**6)
    for bad in (0, -1, 1.5, "1"):
        with pytest.raises(ParamValidationError):
            param.resolve(bad)


def test_retention_asks_for_nothing(bag: BundleDagBag) -> None:
    assert list(bag.dags["retention"].params) == []


def test_whole_number_field_keeps_its_stepper(form: ParamsDict) -> None:
    assert form.get_param("epochs").schema["type"] == ["null", "integer"]
    # Steps of 1 would skip every useful rate.
    assert form.get_param("learning_rate").schema["type"] == ["null", "string", "number"]
