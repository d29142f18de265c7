"""Releases, and the append-only log of deployments that says which of them are live."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.errors import ArtifactError
from pipeline.recipes.kinds import ROUTES, Inputs, Kind, Route
from pipeline.store.artifacts import Artifact


class ScoreLine(BaseModel):
    """From a cosine to a score: `slope * cosine + intercept`, clipped to the score range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float
    intercept: float


#: Of the numbers of an exported file.
Precision = Literal["int8", "fp16", "fp32"]


class Variant(BaseModel):
    """One exported file of a model and how far it is from the trained one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    precision: Precision
    packed: bool = Field(default=False, description="computes no padding")
    parity: dict[str, float] | None = Field(description="None where it was not measured, for want of a GPU")

    @property
    def name(self) -> str:
        """What tells it from the others of its device."""
        return f"packed {self.precision}" if self.packed else self.precision


class Golden(BaseModel):
    """A sentence (or pair) and what the exported model answers: class probabilities, or one score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: tuple[str, ...]
    expected: tuple[float, ...]


class Card(BaseModel):
    """`card.json` of a release: all that serving needs to know of the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    recipe: str
    title: str
    kind: Kind
    inputs: Inputs
    objective: Literal["cross-encoder", "bi-encoder"] | None
    sample: bool
    labels: tuple[str, ...]
    score_range: tuple[float, float] | None
    similar_at: float | None
    calibration: ScoreLine | None = Field(description="from a bi-encoder's cosines")
    euclidean: ScoreLine | None = Field(default=None, description="from the distances of its vectors, which are unit")
    max_length: int = Field(description="tokens, special ones included")
    variants: dict[Literal["cpu", "cuda"], tuple[Variant, ...]] = Field(
        description="files for each device, within the recipe's bounds where those were measured, the surest first"
    )
    golden: tuple[Golden, ...]
    golden_tolerance: float = Field(description="largest difference of an answer, in the answer's own unit")
    figures: dict[str, float] = Field(description="metrics on the test file")
    trained: str = Field(description="ref of the trained artifact")
    created: datetime

    @property
    def route(self) -> Route:
        """Where the service is asked for its answers."""
        return ROUTES[self.kind, self.inputs]

    @field_validator("variants", mode="before")
    @classmethod
    def _several(cls, found: Any) -> Any:
        """Older cards had one file for each device, and no list."""
        if not isinstance(found, Mapping):
            return found
        return {device: (item,) if isinstance(item, Mapping | Variant) else item for device, item in found.items()}


def read_card(release: Artifact) -> Card:
    """The card of a release. Raises ArtifactError where it is missing or damaged."""
    try:
        return Card.model_validate(release.read_json("card.json"))
    except (FileNotFoundError, ValueError) as error:
        raise ArtifactError(f"{release.uri}: card.json is missing or damaged ({error})") from error
