"""What the service reads and writes, as pydantic models: the source of its OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.recipes.kinds import Inputs, Kind, Route

SAMPLE = "the release was trained on the shipped sample, not on real data"
TRUNCATED = "the {0} was longer than the model reads; its end was left out"
UNKNOWN = "share of the {0}'s tokens, of those that were read, which the model does not know: 1 where it knows nothing"

#: Addresses a staged or live release by id or ref.
RELEASE_HEADER = "X-Saebyeok-Release"

Method = Literal["cross-encoder", "cosine", "euclidean"]

# The first item that does not fit is enough: a body of a million of them would be answered with a million errors.
Texts = Annotated[list[str], FailFast()]
Pair = Annotated[list[str], FailFast(), Field(min_length=2, max_length=2)]
Pairs = Annotated[list[Pair], FailFast()]
RecipeName = Annotated[str, Field(max_length=100)]


class Request(BaseModel):
    """An unknown key is an error: a typo must not be answered as if it had not been there.

    How many inputs of which length are taken is the service's setting: it checks them, and its OpenAPI document says
    them.
    """

    # Texts are not for logs.
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class ClassifyRequest(Request):
    """Texts to classify, or pairs of texts: one of the two, as the release reads."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["texts"]}, {"required": ["pairs"]}]})

    texts: Texts = Field(default_factory=list, examples=[["정말 재미있는 영화였어요", "시간이 아까웠다"]])
    pairs: Pairs = Field(
        default_factory=list,
        examples=[[["오늘은 비가 온다", "오늘은 비가 내린다"]]],
        description="instead of `texts`, where a release classifies pairs (`inputs` in `/releases`)",
    )
    recipe: RecipeName | None = Field(default=None, description="left out or null: the only one that fits")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if ("texts" in self.model_fields_set) == ("pairs" in self.model_fields_set):
            raise PydanticCustomError("one_of_both", "the body must have either `texts` or `pairs`")
        return self


class SimilarityRequest(Request):
    """Pairs of sentences to compare."""

    pairs: Pairs = Field(examples=[[["오늘은 비가 온다", "오늘은 비가 내린다"]]])
    recipe: RecipeName | None = Field(default=None, description="left out or null: the only one that fits")
    method: Method | None = Field(
        default=None,
        description="left out or null: the release's own. A cross-encoder reads both sentences at once; a bi-encoder "
        "compares their vectors by cosine or euclidean distance, of which `/releases` says which it has",
    )


class ScoreRequest(Request):
    """Texts to score."""

    texts: Texts = Field(examples=[["정말 재미있는 영화였어요", "시간이 아까웠다"]])
    recipe: RecipeName | None = Field(default=None, description="left out or null: the only one that fits")


class EmbedRequest(Request):
    """Texts to turn into vectors."""

    texts: Texts = Field(examples=[["오늘은 비가 온다", "오늘은 비가 내린다"]])
    recipe: RecipeName | None = Field(default=None, description="left out or null: the only one that fits")


class Response(BaseModel):
    """What every answer says of the release that gave it."""

    recipe: str
    release: str
    sample: bool = Field(description=SAMPLE)


class ClassifyResult(BaseModel):
    """The answer to one text or pair."""

    label: str
    score: float = Field(description="probability of `label`")
    probabilities: dict[str, float]
    truncated: bool = Field(description=TRUNCATED.format("text"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("text"))


class ClassifyResponse(Response):
    """One result a text or pair, in the order of the request."""

    results: list[ClassifyResult]


class SimilarityResult(BaseModel):
    """The answer to one pair."""

    score: float = Field(description="in the recipe's range, 0 (unlike) to 5 (same meaning) for KLUE-STS")
    similar: bool = Field(description="the score reaches the recipe's cut")
    truncated: bool = Field(description=TRUNCATED.format("pair"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("pair"))


class SimilarityResponse(Response):
    """One result a pair, in the order of the request."""

    method: Method = Field(description="how the pairs were compared")
    results: list[SimilarityResult]


class ScoreResult(BaseModel):
    """The score of one text."""

    score: float = Field(description="in the recipe's range: `score_range` in `/releases`")
    truncated: bool = Field(description=TRUNCATED.format("text"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("text"))


class ScoreResponse(Response):
    """One result a text, in the order of the request."""

    results: list[ScoreResult]


class EmbedResult(BaseModel):
    """The vector of one text."""

    vector: list[float] = Field(description="of length 1, so that the dot product of two is their cosine")
    truncated: bool = Field(description=TRUNCATED.format("text"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("text"))


class EmbedResponse(Response):
    """One result a text, in the order of the request."""

    dimensions: int = Field(description="numbers of each vector")
    results: list[EmbedResult]


class ErrorType(StrEnum):
    """The one table of errors: the type, as `error.type` has it, and the HTTP status that goes with it."""

    status: int

    MALFORMED = "malformed", 400
    UNAUTHORIZED = "unauthorized", 401
    NOT_FOUND = "not_found", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    TOO_SLOW = "too_slow", 408
    CONFLICT = "conflict", 409
    TOO_LARGE = "too_large", 413
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415
    INVALID_REQUEST = "invalid_request", 422
    OVERLOADED = "overloaded", 429
    INTERNAL = "internal", 500
    UNAVAILABLE = "unavailable", 503
    TIMEOUT = "timeout", 504

    def __new__(cls, value: str, status: int) -> Self:
        """The member `value`, which is answered with `status`."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        return member

    @classmethod
    def of(cls, status: int) -> ErrorType:
        """The type that goes with a status which somebody else chose; one of no row is the nearest that is told."""
        known = next((kind for kind in cls if kind.status == status), None)
        return known or (cls.INTERNAL if status >= 500 else cls.INVALID_REQUEST)


class ErrorBody(BaseModel):
    """What went wrong."""

    type: ErrorType
    message: str
    index: int | None = Field(default=None, description="which text or pair, counted from 0, where it is about one")


class ErrorResponse(BaseModel):
    """The shape of every error."""

    error: ErrorBody


class StageRequest(Request):
    """A release to load beside those that are live."""

    release: Annotated[str, Field(max_length=500)] = Field(
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
    problem: str | None = Field(
        default=None, description="why it cannot follow the deployments at the moment; null: it can"
    )
    problems: list[LoadProblem]


class LiveRelease(BaseModel):
    """A deployed release, from its card."""

    release: str = Field(description="id, as every answer names it")
    ref: str
    title: str
    kind: Kind
    inputs: Inputs = Field(description="what it reads: single texts, or pairs of them")
    route: Route = Field(description="where it is asked")
    labels: list[str]
    score_range: tuple[float, float] | None = Field(description="lowest and highest score; null: it classifies")
    similar_at: float | None = Field(
        description="the score from which a pair is `similar`, or a text counts as positive in F1; null: it classifies"
    )
    max_length: int = Field(description="tokens that the model reads of a text, or of both of a pair")
    methods: list[Method] = Field(description="how it compares pairs, its own way first; empty where it compares none")
    vectors: bool = Field(description="whether `/embed` has vectors of it")
    sample: bool = Field(description=SAMPLE)
    figures: dict[str, float] = Field(description="metrics on the test file")
    provider: str = Field(description="what ONNX Runtime really runs on")
    variant: str = Field(description="which of its files that is: its precision, and whether it computes no padding")
    rates: dict[str, float] = Field(
        description="golden sentences a second of each of its files, when they were loaded; empty: there is but one"
    )
    created: datetime


class ReadyResponse(BaseModel):
    """What is ready to answer."""

    deployment: int
    providers: dict[str, str] = Field(description="recipe to what ONNX Runtime really runs it on")
    follows: bool = Field(
        default=True, description="whether it can follow the deployments at the moment; `/releases` says why not"
    )


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
