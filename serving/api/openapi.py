"""The OpenAPI document.

`python -m serving.api.openapi` writes serving/openapi.json for the default settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pipeline import __version__
from pipeline.settings import Settings
from serving.api.compatible.openai import EmbeddingsRequest, EmbeddingsResponse, LiveModel, ModelsResponse
from serving.api.compatible.tei import Info, Parameters, PredictRequest, PredictResponse
from serving.client.responses import (
    DEPLOYMENT_HEADER,
    RELEASE_HEADER,
    ClassifyResponse,
    EmbedResponse,
    ReleasesResponse,
    ScoreResponse,
    SimilarityResponse,
)
from serving.schemas import (
    ClassifyRequest,
    EmbedRequest,
    ErrorResponse,
    ErrorType,
    ReadyResponse,
    ScoreRequest,
    SimilarityRequest,
    StagedResponse,
    StageRequest,
)

COMMITTED = Path(__file__).parents[1] / "openapi.json"
REFERENCE = "#/components/schemas/{model}"
ABOUT = """\
Korean BERT models, retrained overnight and served by morning. Every error response is an ErrorResponse, with one type
per status. An error about a single input includes its index. Every response has an `X-Request-Id`."""
#: Errors of any request; below: of routes with keys, with a body, of the models, and of staging.
ANY = (ErrorType.INTERNAL, ErrorType.TIMEOUT)
KEYED = (ErrorType.UNAUTHORIZED,)
BODY = (
    ErrorType.MALFORMED,
    ErrorType.TOO_SLOW,
    ErrorType.TOO_LARGE,
    ErrorType.UNSUPPORTED_MEDIA_TYPE,
    ErrorType.INVALID_REQUEST,
)
MODEL = (*KEYED, *BODY, ErrorType.NOT_FOUND, ErrorType.CONFLICT, ErrorType.OVERLOADED, ErrorType.UNAVAILABLE)
STAGING = (*KEYED, *BODY, ErrorType.CONFLICT)
MEANING = {
    ErrorType.MALFORMED: "The body is not JSON, or cannot be decompressed",
    ErrorType.UNAUTHORIZED: "The API key or deploy token is missing or unknown",
    ErrorType.NOT_FOUND: "No such recipe or release is deployed",
    ErrorType.METHOD_NOT_ALLOWED: "The route does not support this method",
    ErrorType.TOO_SLOW: "The body did not arrive in time",
    ErrorType.CONFLICT: "The replica serves an older deployment than the request needs, or runs a Bento, which cannot "
    "stage releases",
    ErrorType.TOO_LARGE: "The body is too large",
    ErrorType.UNSUPPORTED_MEDIA_TYPE: "The headers declare a body that is not JSON, or an unsupported compression",
    ErrorType.INVALID_REQUEST: "The body does not match the schema, or the release does not support the request",
    ErrorType.OVERLOADED: "The queue is full; retry after the seconds in Retry-After",
    ErrorType.INTERNAL: "An unexpected error",
    ErrorType.UNAVAILABLE: "No release is deployed yet",
    ErrorType.TIMEOUT: "The response was not ready in time",
}
#: Security of routes that need a key if the service has any.
OPTIONAL: list[dict[str, Any]] = [{}, {"key": []}]
TEXT = {"type": "string"}
#: Headers of a request that choose a release or a deployment, and the header of its response.
PINS = [
    {
        "name": RELEASE_HEADER,
        "in": "header",
        "schema": TEXT,
        "description": "id of the live release that must answer, else 404; with the deploy token also a staged one",
    },
    {
        "name": DEPLOYMENT_HEADER,
        "in": "header",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "description": "number of a deployment; a replica that serves an older one answers 409",
    },
]
ANSWERED_BY = {"description": "number of the deployment that answered", "schema": {"type": "integer"}}
#: Groups of the API docs.
TAGS = {
    "models": ("/classify", "/similarity", "/score", "/embed"),
    "releases": ("/releases", "/releases/stage"),
    "OpenAI": ("/v1/embeddings", "/v1/models", "/v1/models/{name}"),
    "TEI": ("/predict", "/info", "/health"),
    "health": ("/livez", "/readyz"),
}
TEI_TOO = "A body of Hugging Face's TEI (`inputs`) gets its answer, a list of vectors"
#: A body of /classify has exactly one of both. Not by `oneOf`, for which client generators accept any body.
TEXTS_OR_PAIRS = {
    "if": {"required": ["texts"]},
    "then": {"not": {"required": ["pairs"]}},
    "else": {"required": ["pairs"]},
}
REQUESTS = (
    ClassifyRequest,
    SimilarityRequest,
    ScoreRequest,
    EmbedRequest,
    EmbeddingsRequest,
    PredictRequest,
    StageRequest,
)
ANSWERS = (
    ClassifyResponse,
    SimilarityResponse,
    ScoreResponse,
    EmbedResponse,
    EmbeddingsResponse,
    PredictResponse,
    ModelsResponse,
    LiveModel,
    Info,
    ReleasesResponse,
    StagedResponse,
    ReadyResponse,
    ErrorResponse,
)


def describe(settings: Settings) -> dict[str, Any]:
    """Return the document of a service with these settings; its schemas contain the limits."""
    _, schemas = models_json_schema(
        [*((model, "validation") for model in REQUESTS), *((model, "serialization") for model in ANSWERS)],
        ref_template=REFERENCE,
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Saebyeok", "description": ABOUT, "version": __version__},
        "servers": [{"url": "."}],
        "tags": [{"name": tag} for tag in TAGS],
        "paths": _paths(),
        "components": {
            "schemas": _limited(schemas["$defs"], settings),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "an API key, if the service has any"},
                "token": {"type": "http", "scheme": "bearer", "description": "the deploy token"},
            },
        },
    }


def write() -> None:
    """Write the committed document."""
    document = describe(Settings.model_construct())
    COMMITTED.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _limited(schemas: dict[str, Any], settings: Settings) -> dict[str, Any]:
    # Generators for TypeScript require a field of a request that has a default.
    for schema in (schemas[model.__name__] for model in (*REQUESTS, Parameters)):
        for field in schema["properties"].values():
            field.pop("default", None)
    text = {"maxLength": settings.max_characters}
    for schema in (schemas[model.__name__]["properties"] for model in REQUESTS):
        for inputs in (schema[name] for name in ("texts", "pairs") if name in schema):
            inputs["maxItems"] = settings.max_inputs
            inputs["items"].get("items", inputs["items"]).update(text)
    schemas[ClassifyRequest.__name__] |= TEXTS_OR_PAIRS
    several = {"type": "array", "maxItems": settings.max_inputs}
    one = {"type": "string", **text}
    _put(schemas[EmbeddingsRequest.__name__], "input", [one, several | {"items": one}])
    # A list of texts is one text or one pair; a list of lists is a batch of either.
    item = [{"type": "array", "minItems": count, "maxItems": count, "items": one} for count in (1, 2)]
    batches = [several | {"minItems": 1, "items": entry} for entry in item]
    _put(schemas[PredictRequest.__name__], "inputs", [one, *item, *batches])
    return schemas


def _put(schema: dict[str, Any], name: str, forms: list[dict[str, Any]]) -> None:
    """Describe a field of requests that has several forms."""
    schema["properties"][name] |= {"anyOf": forms}


def _paths() -> dict[str, Any]:
    paths = _model_paths() | _control_paths()
    for tag, tagged in TAGS.items():
        for path in tagged:
            for operation in paths[path].values():
                operation["tags"] = [tag]
    return paths


def _model_paths() -> dict[str, Any]:
    answers: dict[str, tuple[str, type[BaseModel], type[BaseModel]]] = {
        "/classify": ("Class and probabilities of each text or pair", ClassifyRequest, ClassifyResponse),
        "/similarity": ("The similarity of each pair of sentences", SimilarityRequest, SimilarityResponse),
        "/score": ("The score of each text, from a regression over single texts", ScoreRequest, ScoreResponse),
        "/embed": (f"The vector of each text, from a bi-encoder. {TEI_TOO}", EmbedRequest, EmbedResponse),
        "/v1/embeddings": ("The vector of each text", EmbeddingsRequest, EmbeddingsResponse),
        "/predict": ("The labels of each text or pair, the most probable first", PredictRequest, PredictResponse),
    }
    paths: dict[str, Any] = {}
    for path, (summary, body, answer) in answers.items():
        operation = _operation(path.rpartition("/")[2], summary, answer, MODEL, OPTIONAL, body=body)
        operation["responses"]["200"]["headers"] = {DEPLOYMENT_HEADER: ANSWERED_BY}
        paths[path] = {"post": operation | {"parameters": PINS}}
    # Only one of the two lists is allowed; an example generated from the schema would contain both.
    posted = paths["/classify"]["post"]["requestBody"]["content"]["application/json"]
    posted["example"] = {"texts": (ClassifyRequest.model_fields["texts"].examples or [[]])[0]}
    return paths


def _control_paths() -> dict[str, Any]:
    token: list[dict[str, Any]] = [{"token": []}]
    unavailable = (ErrorType.UNAVAILABLE,)
    found = (*KEYED, ErrorType.NOT_FOUND, *unavailable)
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "recipe"}
    ready = "Whether a deployment is loaded, and on which provider"
    staging: dict[str, Any] = {"status": 202, "body": StageRequest}
    gets = {
        "/releases": _operation("releases", "The deployed releases and the workers", ReleasesResponse, KEYED, OPTIONAL),
        "/v1/models": _operation("models", "The live recipes", ModelsResponse, KEYED, OPTIONAL),
        "/v1/models/{name}": _operation("model", "A live recipe", LiveModel, found, OPTIONAL) | {"parameters": [name]},
        "/info": _operation("info", "The live releases", Info, (*KEYED, *unavailable), OPTIONAL),
        "/livez": _described("livez", "Whether the service runs", {"content": {"text/plain": {"schema": TEXT}}}),
        "/readyz": _operation("readyz", ready, ReadyResponse, unavailable, [{}]),
        "/health": _described("health", "Whether the service runs", {}),
    }
    stage = {
        "post": _operation("stage", "Stage a release", StagedResponse, STAGING, token, **staging),
        "delete": _operation("unstage", "Unstage a release", StagedResponse, STAGING, token, **staging),
    }
    return {path: {"get": operation} for path, operation in gets.items()} | {"/releases/stage": stage}


def _operation(
    name: str,
    summary: str,
    answer: type[BaseModel],
    kinds: tuple[ErrorType, ...],
    security: list[dict[str, Any]],
    *,
    status: int = 200,
    body: type[BaseModel] | None = None,
) -> dict[str, Any]:
    responses = {str(status): {"description": "Success", "content": _content(answer)}} | _errors(kinds)
    operation = {"operationId": name, "summary": summary, "security": security, "responses": responses}
    return operation | ({"requestBody": {"required": True, "content": _content(body)}} if body else {})


def _described(name: str, summary: str, success: dict[str, Any]) -> dict[str, Any]:
    """Return an open operation whose response is no JSON."""
    responses = {"200": {"description": "Success", **success}} | _errors(())
    return {"operationId": name, "summary": summary, "security": [{}], "responses": responses}


def _errors(kinds: tuple[ErrorType, ...]) -> dict[str, Any]:
    """Return the responses for errors of these kinds, by status."""
    return {
        str(kind.status): {"description": f"`{kind}`: {MEANING[kind]}", "content": _content(ErrorResponse)}
        | (
            {"headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}}
            if kind is ErrorType.OVERLOADED
            else {}
        )
        for kind in sorted({*kinds, *ANY}, key=lambda kind: kind.status)
    }


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}


if __name__ == "__main__":
    write()
