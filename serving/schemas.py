"""What the service reads and writes, as pydantic models: the source of its OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_INPUTS = 1_000
MAX_CHARACTERS = 10_000
SAMPLE = "the release was trained on the shipped sample, not on real data"

Text = Annotated[str, StringConstraints(strict=True, max_length=MAX_CHARACTERS)]
Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
RecipeName = Annotated[str, StringConstraints(strict=True, max_length=100)]


class Request(BaseModel):
    """An unknown key is an error: a typo must not be answered as if it had not been there."""

    model_config = ConfigDict(extra="forbid")


class ClassifyRequest(Request):
    """Texts to classify."""

    texts: list[Text] = Field(max_length=MAX_INPUTS)
    recipe: RecipeName | None = Field(default=None, description="left out or null: the only deployed one of this kind")


class SimilarityRequest(Request):
    """Pairs of sentences to compare."""

    pairs: list[Pair] = Field(max_length=MAX_INPUTS)
    recipe: RecipeName | None = Field(default=None, description="left out or null: the only deployed one of this kind")


class Response(BaseModel):
    """What every answer says of the release that gave it."""

    recipe: str
    release: str
    sample: bool = Field(description=SAMPLE)


class ClassifyResult(BaseModel):
    """The answer to one text."""

    label: str
    score: float = Field(description="probability of `label`")
    probabilities: dict[str, float]
    truncated: bool = Field(description="the text was longer than the model reads; its end was left out")


class ClassifyResponse(Response):
    """One result a text, in the order of the request."""

    results: list[ClassifyResult]


class SimilarityResult(BaseModel):
    """The answer to one pair."""

    score: float = Field(description="in the recipe's range, 0 (unlike) to 5 (same meaning) for KLUE-STS")
    similar: bool = Field(description="the score reaches the recipe's cut")
    truncated: bool = Field(description="the pair was longer than the model reads; its end was left out")


class SimilarityResponse(Response):
    """One result a pair, in the order of the request."""

    results: list[SimilarityResult]


class ErrorBody(BaseModel):
    """What went wrong."""

    type: str
    message: str
    index: int | None = Field(default=None, description="which text or pair, counted from 0, where it is about one")


class ErrorResponse(BaseModel):
    """The shape of every error."""

    error: ErrorBody


class StageRequest(Request):
    """A release to load beside those that are live."""

    release: Annotated[str, StringConstraints(strict=True, max_length=500)] = Field(
        description="its ref in the store: release/<recipe>/<key>/<attempt>"
    )


class StagedResponse(BaseModel):
    """Refs of the releases that the workers are to keep staged."""

    staged: list[str]


class LoadProblem(BaseModel):
    """Why a worker could not load a release."""

    release: str
    type: str
    message: str
    retryable: bool


class WorkerState(BaseModel):
    """What one worker process says of itself."""

    pid: int
    started: datetime
    heartbeat: datetime
    deployment: int = Field(description="number of the deployment that it serves; 0: none yet")
    live: dict[str, str] = Field(description="recipe to the ref of the release that answers users")
    staged: list[str] = Field(description="refs of the staged releases that it has loaded")
    problems: list[LoadProblem]


class LiveRelease(BaseModel):
    """A deployed release, from its card."""

    release: str = Field(description="id, as every answer names it")
    ref: str
    title: str
    kind: str
    labels: list[str]
    score_range: tuple[float, float] | None = Field(description="lowest and highest score; null: it classifies")
    similar_at: float | None = Field(description="the score from which a pair is `similar`; null: it classifies")
    max_length: int = Field(description="tokens that the model reads of a text, or of both of a pair")
    sample: bool = Field(description=SAMPLE)
    figures: dict[str, float] = Field(description="metrics on the test file")
    provider: str = Field(description="what ONNX Runtime really runs on")
    created: datetime


class ReleasesResponse(BaseModel):
    """What is deployed, as the answering worker sees it, and what every live worker says."""

    store: str | None = Field(description="digest of the store whose deployments it follows; null: a Bento's own")
    deployment: int = Field(description="0 before the first deployment")
    created: datetime | None
    run: str | None
    reason: str | None
    recipes: dict[str, LiveRelease]
    staged: list[str]
    worker: int = Field(description="pid of the worker that answers")
    workers: list[WorkerState]
