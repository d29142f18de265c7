"""OpenAI's embeddings API, for its clients: requests, responses, and the conversion of vectors into responses.

Source: https://platform.openai.com/docs/api-reference/embeddings and .../models, read in November 2026.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from serving.api.compatible.common import TextOrTexts, Whole, check_dimensions
from serving.engine.engine import Answer, Engine
from serving.schemas import Request

Vector = np.ndarray[Any, Any]


class EmbeddingsRequest(Request):
    """Texts to embed."""

    input: TextOrTexts = Field(examples=[["오늘은 비가 온다", "오늘은 비가 내린다"]])
    model: str = Field(max_length=100, description="name of a recipe; `/v1/models` lists them", examples=["klue-sts"])
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="base64: the vector's 32-bit floats, little-endian; omitted: numbers"
    )
    dimensions: Whole | None = Field(default=None, description="omitted, or the number of dimensions of the model")
    user: str | None = Field(default=None, max_length=1000, description="ignored")


class Embedding(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="index of the text in the request")
    embedding: list[float] | str = Field(
        description="unit vector; the dot product of two vectors is their cosine similarity"
    )


class TokenUsage(BaseModel):
    """Number of tokens read, without special ones."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """One vector per text, in the order of the request."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(description="name of the recipe")
    release: str = Field(description="id of the release that computed the vectors")
    usage: TokenUsage


class LiveModel(BaseModel):
    """A recipe with a live release."""

    id: str = Field(description="name of the recipe")
    object: Literal["model"] = "model"
    created: int = Field(description="creation of the live release, in seconds since 1970")
    owned_by: Literal["saebyeok"] = "saebyeok"


class ModelsResponse(BaseModel):
    """All recipes with a live release."""

    object: Literal["list"] = "list"
    data: list[LiveModel]


def embeddings(request: EmbeddingsRequest, engine: Engine, answer: Answer) -> EmbeddingsResponse:
    """Return the response to `request`. Raises ApiError if it asks for other dimensions."""
    check_dimensions(request.dimensions, answer.values)
    encode: Callable[[Vector], list[float] | str] = _base64 if request.encoding_format == "base64" else _numbers
    tokens = int(answer.tokens.sum())
    return EmbeddingsResponse(
        data=[Embedding(index=index, embedding=encode(vector)) for index, vector in enumerate(answer.values)],
        model=engine.card.recipe,
        release=engine.card.id,
        usage=TokenUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def model_of(engine: Engine) -> LiveModel:
    """Return the description of a live release."""
    return LiveModel(id=engine.card.recipe, created=int(engine.card.created.timestamp()))


def _numbers(vector: Vector) -> list[float]:
    return list(map(float, vector))


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
