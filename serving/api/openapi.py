"""The OpenAPI document.

`python -m serving.api.openapi` writes serving/openapi.json, as it is with the default settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pipeline import __version__
from pipeline.settings import Settings
from serving.schemas import (
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    ErrorResponse,
    ErrorType,
    ReadyResponse,
    ReleasesResponse,
    ScoreRequest,
    ScoreResponse,
    SimilarityRequest,
    SimilarityResponse,
    StagedResponse,
    StageRequest,
)

COMMITTED = Path(__file__).parents[1] / "openapi.json"
REFERENCE = "#/components/schemas/{model}"
ABOUT = """\
Korean BERT models, retrained overnight and served by morning. Every error has the shape of ErrorResponse; its type
follows from its status. What is wrong with one input is said with its index. Every answer has an `X-Request-Id`."""
#: What can happen to any request, to one with a body, and to one that a model answers.
ANY = (ErrorType.INTERNAL, ErrorType.TIMEOUT)
KEYED = (ErrorType.UNAUTHORIZED,)
BODY = (
    ErrorType.MALFORMED,
    ErrorType.TOO_SLOW,
    ErrorType.TOO_LARGE,
    ErrorType.UNSUPPORTED_MEDIA_TYPE,
    ErrorType.INVALID_REQUEST,
)
MODEL = (*KEYED, *BODY, ErrorType.NOT_FOUND, ErrorType.OVERLOADED, ErrorType.UNAVAILABLE)
STAGING = (*KEYED, *BODY, ErrorType.CONFLICT)
MEANING = {
    ErrorType.MALFORMED: "The body is not JSON, or cannot be decompressed",
    ErrorType.UNAUTHORIZED: "No API key, or none that is known",
    ErrorType.NOT_FOUND: "No such recipe or release is deployed",
    ErrorType.METHOD_NOT_ALLOWED: "The route has other methods",
    ErrorType.TOO_SLOW: "The body was not there in time",
    ErrorType.CONFLICT: "The service runs a Bento, which cannot stage",
    ErrorType.TOO_LARGE: "The body is too large",
    ErrorType.UNSUPPORTED_MEDIA_TYPE: "The body is not JSON by its headers, or compressed in an unknown way",
    ErrorType.INVALID_REQUEST: "The body is JSON and not what it should be, or asks what the release cannot do",
    ErrorType.OVERLOADED: "The queue is full; Retry-After says when to try again",
    ErrorType.INTERNAL: "An unexpected error",
    ErrorType.UNAVAILABLE: "No release is deployed yet",
    ErrorType.TIMEOUT: "No answer in time",
}
REQUESTS = (ClassifyRequest, SimilarityRequest, ScoreRequest, EmbedRequest, StageRequest)
ANSWERS = (
    ClassifyResponse,
    SimilarityResponse,
    ScoreResponse,
    EmbedResponse,
    ReleasesResponse,
    StagedResponse,
    ReadyResponse,
    ErrorResponse,
)


def describe(settings: Settings) -> dict[str, Any]:
    """The document of a service with these settings: its limits are in the schemas."""
    _, schemas = models_json_schema(
        [*((model, "validation") for model in REQUESTS), *((model, "serialization") for model in ANSWERS)],
        ref_template=REFERENCE,
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Saebyeok", "description": ABOUT, "version": __version__},
        "servers": [{"url": "."}],
        "paths": _paths(),
        "components": {
            "schemas": _limited(schemas["$defs"], settings),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "an API key, where the service has any"},
                "token": {"type": "http", "scheme": "bearer", "description": "the deploy token"},
            },
        },
    }


def write() -> None:
    """Write the committed document."""
    document = describe(Settings.model_construct())
    COMMITTED.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _limited(schemas: dict[str, Any], settings: Settings) -> dict[str, Any]:
    text = {"maxLength": settings.max_characters}
    for schema in (schemas[model.__name__]["properties"] for model in REQUESTS):
        for inputs in (schema[name] for name in ("texts", "pairs") if name in schema):
            inputs["maxItems"] = settings.max_inputs
            inputs["items"].get("items", inputs["items"]).update(text)
    return schemas


def _paths() -> dict[str, Any]:
    asks = "`X-Saebyeok-Release` addresses a staged or live release, with the deploy token."
    answers: dict[str, tuple[str, type[BaseModel], type[BaseModel]]] = {
        "/classify": ("Class and probabilities of each text or pair", ClassifyRequest, ClassifyResponse),
        "/similarity": ("How alike the two sentences of each pair are", SimilarityRequest, SimilarityResponse),
        "/score": ("The score of each text, from a regression over single texts", ScoreRequest, ScoreResponse),
        "/embed": ("The vector of each text, from a bi-encoder", EmbedRequest, EmbedResponse),
    }
    optional: list[dict[str, Any]] = [{}, {"key": []}]
    paths: dict[str, Any] = {
        path: {"post": _operation(path[1:], summary, answer, MODEL, optional, body=body) | {"description": asks}}
        for path, (summary, body, answer) in answers.items()
    }
    # Of its two lists one may be there: an example made up from the schema would have both.
    posted = paths["/classify"]["post"]["requestBody"]["content"]["application/json"]
    posted["example"] = {"texts": (ClassifyRequest.model_fields["texts"].examples or [[]])[0]}
    paths["/releases"] = {"get": _operation("releases", "What is deployed", ReleasesResponse, KEYED, optional)}
    token: list[dict[str, Any]] = [{"token": []}]
    paths["/releases/stage"] = {
        "post": _operation("stage", "Stage a release", StagedResponse, STAGING, token, status=202, body=StageRequest),
        "delete": _operation(
            "unstage", "Unstage a release", StagedResponse, STAGING, token, status=202, body=StageRequest
        ),
    }
    plain = {"text/plain": {"schema": {"type": "string"}}}
    lives = _described("livez", "Whether the service runs", [{}], {"200": _success(plain)} | _errors(()))
    unavailable = (ErrorType.UNAVAILABLE,)
    ready = _operation("readyz", "Whether a release is deployed, and what runs it", ReadyResponse, unavailable, [{}])
    return paths | {"/livez": {"get": lives}, "/readyz": {"get": ready}}


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
    operation = _described(name, summary, security, {str(status): _success(_content(answer))} | _errors(kinds))
    return operation | ({"requestBody": {"required": True, "content": _content(body)}} if body else {})


def _described(name: str, summary: str, security: list[dict[str, Any]], responses: dict[str, Any]) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "security": security, "responses": responses}


def _success(content: dict[str, Any]) -> dict[str, Any]:
    return {"description": "The answer", "content": content}


def _errors(kinds: tuple[ErrorType, ...]) -> dict[str, Any]:
    """Responses for errors of these kinds, by status."""
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
