"""Responses of the service as pydantic models."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

# The client installs without the pipeline, so it repeats these four types; a test compares them.
Kind = Literal["classification", "regression"]
Inputs = Literal["text", "pair"]
Route = Literal["/classify", "/similarity", "/score"]
#: Method by which the service compares the texts of a pair.
Method = Literal["cross-encoder", "cosine", "euclidean"]

#: Header that addresses a live release by id or ref; with the deploy token also a staged one.
RELEASE_HEADER = "X-Saebyeok-Release"
#: Header of a request that needs this deployment or a newer one, and of every response of a model: its deployment.
DEPLOYMENT_HEADER = "X-Saebyeok-Deployment"

SAMPLE = "whether the release was trained on the shipped sample data instead of real data"
TRUNCATED = "whether the {0} was longer than the model's maximum and its end was cut off"
UNKNOWN = "share of the {0}'s tokens that are unknown to the model, from 0 to 1; tokens that were cut off do not count"


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
