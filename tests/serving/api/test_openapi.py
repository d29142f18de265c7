"""The committed OpenAPI document: up to date, and complete."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from jsonschema import Draft202012Validator

from pipeline.recipes.kinds.task_kind import Method
from pipeline.settings import Settings
from serving.api.middleware import BODIES
from serving.api.openapi import COMMITTED, describe
from serving.schemas import ErrorType


def committed() -> dict[str, object]:
    document: dict[str, object] = json.loads(COMMITTED.read_text(encoding="utf-8"))
    return document


def test_the_committed_document_has_not_drifted() -> None:
    assert committed() == describe(Settings()), "run `python -m serving.api.openapi` and look at the difference"


def test_openapi_document_contains_the_limits() -> None:
    settings = Settings(max_inputs=7, max_characters=70)
    schemas = describe(settings)["components"]["schemas"]
    for name in ("ClassifyRequest", "ScoreRequest", "EmbedRequest"):
        texts = schemas[name]["properties"]["texts"]
        assert (texts["maxItems"], texts["items"]["maxLength"]) == (7, 70)
    for name in ("ClassifyRequest", "SimilarityRequest"):
        pairs = schemas[name]["properties"]["pairs"]
        assert (pairs["maxItems"], pairs["items"]["items"]["maxLength"]) == (7, 70)


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"texts": ["가"]}, True),
        ({"pairs": [["가", "나"]]}, True),
        ({"texts": ["가"], "recipe": None}, True),
        ({"texts": ["가"], "pairs": [["가", "나"]]}, False),
        ({"recipe": "nsmc"}, False),
        ({"texts": "가"}, False),
    ],
)
def test_body_of_classify_is_one_named_model(body: dict[str, object], valid: bool) -> None:
    schema = describe(Settings())["components"]["schemas"]["ClassifyRequest"]
    assert Draft202012Validator(schema).is_valid(body) is valid
    # For a union without names, client generators take any body.
    assert not schema.keys() & {"oneOf", "anyOf", "allOf"}


def test_routes_with_a_body_have_an_example() -> None:
    document = describe(Settings())
    paths, schemas = document["paths"], document["components"]["schemas"]
    described = {
        (method.upper(), path) for path, item in paths.items() for method in item if "requestBody" in item[method]
    }
    assert described == BODIES
    for name in ("ClassifyRequest", "SimilarityRequest", "ScoreRequest", "EmbedRequest"):
        field = "pairs" if name == "SimilarityRequest" else "texts"
        assert schemas[name]["properties"][field]["examples"]
        assert schemas[name]["additionalProperties"] is False


def test_requests_have_no_defaults_in_the_document() -> None:
    # openapi-typescript makes a field with a default a required one.
    schemas = describe(Settings())["components"]["schemas"]
    requests = [schema for name, schema in schemas.items() if name.endswith("Request")]
    assert len(requests) == 7
    assert not any("default" in field for schema in requests for field in schema["properties"].values())


def test_bounds_have_their_names_in_json_schema() -> None:
    # pydantic writes a bound behind a validator under its own name, which every reader ignores.
    schemas = describe(Settings())["components"]["schemas"]
    top_k = schemas["Parameters"]["properties"]["top_k"]["anyOf"][0]
    assert top_k == {"type": "integer", "minimum": 1}
    text = json.dumps(schemas)
    assert not any(f'"{name}": ' in text for name in ("ge", "gt", "le", "lt"))


def test_every_error_type_has_a_documented_status() -> None:
    assert len({kind.status for kind in ErrorType}) == len(ErrorType)
    statuses = {
        int(status)
        for item in describe(Settings())["paths"].values()
        for operation in item.values()
        for status in operation["responses"]
    }
    # No operation of the document returns 405.
    assert {kind.status for kind in ErrorType} - statuses == {405}


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "not_found"), (418, "invalid_request"), (502, "internal"), (504, "timeout")]
)
def test_foreign_status_maps_to_an_error_type(status: int, kind: str) -> None:
    assert ErrorType.of(status) == kind


def test_methods_are_an_enumeration() -> None:
    schema = describe(Settings())["components"]["schemas"]["SimilarityRequest"]["properties"]["method"]
    assert schema["anyOf"][0]["enum"] == list(get_args(Method))
