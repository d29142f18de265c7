"""Releases: the card of an exported model, with its variants and golden sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.errors import ArtifactError
from pipeline.recipes.kinds.registry import kind_of
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.kinds.task_kind import Inputs, Kind, Objective, Route, TaskKind
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.formats import Record

#: Numeric precision of an exported file.
Precision = Literal["int8", "fp16", "fp32"]
#: Function from sentences (or pairs) to rows of numbers: class probabilities, or one score.
Ask = Callable[[Sequence[tuple[str, ...]]], list[list[float]]]


class Variant(BaseModel):
    """One exported file of a model and its parity with the trained model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    precision: Precision
    packed: bool = Field(default=False, description="computes no padding")
    parity: dict[str, float] | None = Field(description="None if it was not measured because there was no GPU")

    @property
    def name(self) -> str:
        """Its name, unique among the variants of a device."""
        return f"packed {self.precision}" if self.packed else self.precision


class Golden(BaseModel):
    """A sentence (or pair) and the exported model's answer: class probabilities, or one score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: tuple[str, ...]
    expected: tuple[float, ...]


class Card(Record):
    """`card.json` of a release: everything that serving needs to know about the model."""

    id: str = Field(description="id of the release")
    recipe: str = Field(description="name of the recipe")
    title: str = Field(description="title of the recipe")
    kind: Kind = Field(description="kind of the answers")
    inputs: Inputs = Field(description="single texts, or pairs")
    objective: Objective | None = Field(description="how a pair is compared; null for single texts")
    sample: bool = Field(description="whether it was trained on the shipped sample")
    labels: tuple[str, ...] = Field(description="label names in the order of the class numbers; empty for scores")
    score_range: tuple[float, float] | None = Field(description="lowest and highest score; null for labels")
    similar_at: float | None = Field(description="lowest score that counts as positive; null for labels")
    calibration: ScoreLine | None = Field(description="map from a bi-encoder's cosines to scores")
    euclidean: ScoreLine | None = Field(
        default=None, description="map from the Euclidean distances of its unit vectors to scores"
    )
    max_length: int = Field(description="maximum number of tokens, special ones included")
    variants: dict[Literal["cpu", "cuda"], tuple[Variant, ...]] = Field(
        description="files for each device, the most reliable first; measured ones are within the recipe's bounds"
    )
    golden: tuple[Golden, ...] = Field(description="sentences with the answers that a service must give")
    golden_tolerance: float = Field(description="maximum difference of an answer, in the answer's unit")
    figures: dict[str, float] = Field(description="metrics on the test file")
    trained: str = Field(description="ref of the trained artifact")
    created: datetime = Field(description="time of the export, in UTC")

    @property
    def task(self) -> TaskKind:
        """The kind of task that the model has learned."""
        return kind_of(self.kind, self.inputs, self.objective)

    @property
    def route(self) -> Route:
        """The service's route for this release."""
        return self.task.route

    @field_validator("variants", mode="before")
    @classmethod
    def _several(cls, found: Any) -> Any:
        """Convert cards of older versions, which have one file per device instead of a list."""
        if not isinstance(found, Mapping):
            return found
        return {device: (item,) if isinstance(item, Mapping | Variant) else item for device, item in found.items()}


def find_release(store: Store, name: str) -> Artifact:
    """Return the release with the id or ref `name`. Raises ArtifactError if there is none."""
    if "/" in name:
        return store.open(name)
    recipe = name.rpartition("-")[0]
    for ref in store.refs("release", recipe) if recipe else ():
        if release_id(store, ref) == name:
            return store.open(ref)
    raise ArtifactError(f"store {store.uri} has no release {name}; `saebyeok releases` lists the deployed ones")


def release_id(store: Store, ref: str) -> str:
    """Return the id of the release at `ref`, or `ref` itself if the release was deleted or cannot be read."""
    try:
        return read_card(store.open(ref)).id
    except ArtifactError:
        return ref


def read_card(release: Artifact) -> Card:
    """Return the card of a release. Raises ArtifactError if it is missing or damaged."""
    return release.read_record("card.json", Card)
