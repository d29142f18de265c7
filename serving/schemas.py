"""Requests and responses of the service as pydantic models, from which the OpenAPI document is generated."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.recipes.kinds.task_kind import Inputs, Kind, Method, Route

SAMPLE = "whether the release was trained on the shipped sample data instead of real data"
TRUNCATED = "whether the {0} was longer than the model's maximum and its end was cut off"
UNKNOWN = "share of the {0}'s tokens that are unknown to the model, from 0 to 1; tokens that were cut off do not count"

#: Header that addresses a live release by id or ref; with the deploy token also a staged one.
RELEASE_HEADER = "X-Saebyeok-Release"
#: Header of a request that needs this deployment or a newer one, and of every response of a model: its deployment.
DEPLOYMENT_HEADER = "X-Saebyeok-Deployment"

# Stop at the first invalid item: a body with a million of them would cause a million errors.
Texts = Annotated[list[str], FailFast()]
Pair = Annotated[list[str], FailFast(), Field(min_length=2, max_length=2)]
Pairs = Annotated[list[Pair], FailFast()]
RecipeName = Annotated[
    Annotated[str, Field(max_length=100)] | None,
    Field(description="may be omitted or null if only one deployed recipe fits"),
]


class Request(BaseModel):
    """A request body. Unknown keys are rejected, so that a misspelt key is not silently ignored.

    The limits on the number and length of inputs are settings: the service checks them, and its OpenAPI document
    contains them.
    """

    # Keep texts out of the logs.
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class ClassifyRequest(Request):
    """Texts or pairs of texts to classify; which of the two depends on the release."""

    texts: Texts = Field(default_factory=list, examples=[["정말 재미있는 영화였어요", "시간이 아까웠다"]])
    pairs: Pairs = Field(
        default_factory=list,
        examples=[[["오늘은 비가 온다", "오늘은 비가 내린다"]]],
        description="instead of `texts`, if the release classifies pairs (`inputs` in `/releases`)",
    )
    recipe: RecipeName = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if ("texts" in self.model_fields_set) == ("pairs" in self.model_fields_set):
            raise PydanticCustomError("one_of_both", "the body must have either `texts` or `pairs`")
        return self


class SimilarityRequest(Request):
    """Pairs of sentences to compare."""

    pairs: Pairs = Field(examples=[[["오늘은 비가 온다", "오늘은 비가 내린다"]]])
    recipe: RecipeName = None
    method: Method | None = Field(
        default=None,
        description="omitted or null: the release's default. A cross-encoder reads both sentences together; a "
        "bi-encoder compares their vectors by cosine or Euclidean distance. `/releases` lists the available methods",
    )


class ScoreRequest(Request):
    """Texts to score."""

    texts: Texts = Field(examples=[["정말 재미있는 영화였어요", "시간이 아까웠다"]])
    recipe: RecipeName = None


class EmbedRequest(Request):
    """Texts to embed."""

    texts: Texts = Field(examples=[["오늘은 비가 온다", "오늘은 비가 내린다"]])
    recipe: RecipeName = None


class Response(BaseModel):
    """Fields of every response about the release that computed it."""

    recipe: str
    release: str
    sample: bool = Field(description=SAMPLE)


class ClassifyResult(BaseModel):
    """The class of one text or pair."""

    label: str
    score: float = Field(description="probability of `label`")
    probabilities: dict[str, float]
    truncated: bool = Field(description=TRUNCATED.format("text"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("text"))


class ClassifyResponse(Response):
    """One result per text or pair, in the order of the request."""

    results: list[ClassifyResult]


class SimilarityResult(BaseModel):
    """The similarity of one pair."""

    score: float = Field(
        description="within the recipe's score range; for KLUE-STS from 0 (unrelated) to 5 (equivalent)"
    )
    similar: bool = Field(description="whether the score is at least the recipe's threshold")
    truncated: bool = Field(description=TRUNCATED.format("pair"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("pair"))


class SimilarityResponse(Response):
    """One result per pair, in the order of the request."""

    method: Method = Field(description="method of the comparison")
    results: list[SimilarityResult]


class ScoreResult(BaseModel):
    """The score of one text."""

    score: float = Field(description="within the recipe's score range (`score_range` in `/releases`)")
    truncated: bool = Field(description=TRUNCATED.format("text"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("text"))


class ScoreResponse(Response):
    """One result per text, in the order of the request."""

    results: list[ScoreResult]


class EmbedResult(BaseModel):
    """The vector of one text."""

    vector: list[float] = Field(description="unit vector; the dot product of two vectors is their cosine similarity")
    truncated: bool = Field(description=TRUNCATED.format("text"))
    unknown_share: float = Field(ge=0, le=1, description=UNKNOWN.format("text"))


class EmbedResponse(Response):
    """One result per text, in the order of the request."""

    dimensions: int = Field(description="number of dimensions of each vector")
    results: list[EmbedResult]


class ErrorType(StrEnum):
    """All error types (`error.type`) and their HTTP status."""

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
        """Create the member `value` with HTTP status `status`."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        return member

    @classmethod
    def of(cls, status: int) -> ErrorType:
        """Return the type for an HTTP status; for an unlisted status INTERNAL (5xx) or INVALID_REQUEST."""
        known = next((kind for kind in cls if kind.status == status), None)
        return known or (cls.INTERNAL if status >= 500 else cls.INVALID_REQUEST)


class ErrorBody(BaseModel):
    """Type, message and location of an error."""

    type: ErrorType
    message: str
    index: int | None = Field(
        default=None, description="index of the text or pair that caused the error, from 0; null if none did"
    )


class ErrorResponse(BaseModel):
    """The body of every error response."""

    error: ErrorBody


class StageRequest(Request):
    """A release to load in addition to the live ones."""

    release: Annotated[str, Field(max_length=500)] = Field(
        description="ref of the release in the store: release/<recipe>/<key>/<attempt>"
    )


class StagedResponse(BaseModel):
    """Refs of all releases that the workers must keep staged."""

    staged: list[str]


class LoadProblem(BaseModel):
    """Why a worker could not load a release."""

    release: str
    type: str
    message: str
    retryable: bool


class WorkerState(BaseModel):
    """State of one worker process."""

    pid: int
    started: datetime
    heartbeat: datetime
    deployment: int = Field(description="number of the deployment that the worker serves; 0: none yet")
    newest: int = Field(default=0, description="number of the newest deployment that the worker has read; 0: none yet")
    live: dict[str, str] = Field(description="recipe to the ref of its live release")
    staged: list[str] = Field(description="refs of the staged releases that the worker has loaded")
    problem: str | None = Field(
        default=None, description="why the worker currently cannot read the deployments; null if it can"
    )
    problems: list[LoadProblem]


class LiveRelease(BaseModel):
    """A deployed release, as its card describes it."""

    release: str = Field(description="id of the release, as in every response")
    ref: str
    title: str
    kind: Kind
    inputs: Inputs = Field(description="input of the model: single texts or pairs of texts")
    route: Route = Field(description="route that serves the release")
    labels: list[str]
    score_range: tuple[float, float] | None = Field(description="lowest and highest score; null for classification")
    similar_at: float | None = Field(
        description="lowest score of a `similar` pair, or of a positive text in F1; null for classification"
    )
    max_length: int = Field(description="maximum number of tokens per text, or per pair")
    methods: list[Method] = Field(description="methods to compare pairs, the default first; empty if it compares none")
    vectors: bool = Field(description="whether the release can embed texts (`/embed`)")
    sample: bool = Field(description=SAMPLE)
    figures: dict[str, float] = Field(description="metrics on the test file")
    provider: str = Field(description="execution provider that ONNX Runtime uses")
    variant: str = Field(description="file that runs: its precision, prefixed with `packed` if it computes no padding")
    rates: dict[str, float] = Field(
        description="golden sentences per second of each file, measured at load time; empty if there is only one file"
    )
    created: datetime


class ReadyResponse(BaseModel):
    """Readiness of the worker that answers."""

    deployment: int
    providers: dict[str, str] = Field(description="recipe to the execution provider that ONNX Runtime uses for it")
    follows: bool = Field(
        default=True,
        description="whether the worker can currently read the deployments; `/releases` gives the reason if not",
    )


class ReleasesResponse(BaseModel):
    """The deployment of the worker that answers, and the state of all live workers."""

    store: str | None = Field(description="digest of the store whose deployments are served; null for a Bento")
    replica: str | None = Field(default=None, description="id of the replica that answers; null for a Bento")
    deployment: int = Field(description="number of the deployment; 0 before the first")
    created: datetime | None
    run: str | None
    reason: str | None
    recipes: dict[str, LiveRelease]
    staged: list[str]
    worker: int = Field(description="pid of the worker that answers")
    workers: list[WorkerState]
