"""Releases, and the append-only log of deployments that says which of them are live."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import ArtifactError, ConflictError, RefusedError
from pipeline.store.artifacts import Artifact, Store

DEPLOYMENTS = "deployments"
RECORD = re.compile(r"\d{6,}\.json")

#: Kind of the artifact that says that a person said no.
REJECTION = "rejection"


class Calibration(BaseModel):
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


Kind = Literal["classification", "regression"]
Inputs = Literal["text", "pair"]
Route = Literal["/classify", "/similarity", "/score"]

#: Where the service is asked for the answers of a release, by what it makes of what.
ROUTES: dict[tuple[Kind, Inputs], Route] = {
    ("classification", "text"): "/classify",
    ("classification", "pair"): "/classify",
    ("regression", "pair"): "/similarity",
    ("regression", "text"): "/score",
}


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
    calibration: Calibration | None = Field(description="from a bi-encoder's cosines")
    euclidean: Calibration | None = Field(default=None, description="from the distances of its vectors, which are unit")
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


class Estimate(BaseModel):
    """A figure with its interval: 95%, of a difference 90% (whose lower end is what a margin is held against)."""

    # See `Check`.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float
    low: float
    high: float


class Check(BaseModel):
    """One figure held against its bound."""

    # A value that is not a number stays one: as null the decision could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    kind: Literal["floor", "behaviour", "comparison"]
    name: str
    value: float
    bound: float
    passed: bool
    estimate: Estimate | None = Field(default=None, description="what was measured, where that has an interval")
    miss: str | None = Field(default=None, description="why it failed, where a figure below a bound does not say it")


class Decision(BaseModel):
    """`decision.json` of a decide artifact: whether the trained model may be released, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promote: bool
    reason: str = Field(description="one sentence")
    champion: str | None = Field(description="ref of the release that it was compared with")
    best: str | None = Field(description="ref of the best release before the champion, which it was compared with too")
    notes: tuple[str, ...] = Field(description="what else a person should know, a sentence each")
    checks: tuple[Check, ...]

    @property
    def is_champion(self) -> bool:
        """Whether the model that was judged is the champion's own, so that there was nothing to compare."""
        return self.champion is not None and all(check.kind != "comparison" for check in self.checks)

    @property
    def why(self) -> str:
        """The reason without its first word, for where the verdict itself stands above it."""
        text = self.reason.removeprefix("Promoted: ").removeprefix("Refused: ")
        return text[:1].upper() + text[1:]


class Deployment(BaseModel):
    """An immutable, numbered map from recipe to release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    created: datetime
    run: str
    reason: str
    releases: dict[str, str] = Field(description="recipe to the ref of its release")


def read_card(release: Artifact) -> Card:
    """The card of a release. Raises ArtifactError where it is missing or damaged."""
    try:
        return Card.model_validate(release.read_json("card.json"))
    except (FileNotFoundError, ValueError) as error:
        raise ArtifactError(f"{release.uri}: card.json is missing or damaged ({error})") from error


def read_decision(decided: Artifact) -> Decision:
    """The decision of a `decide` artifact. Raises ArtifactError where it is missing or damaged."""
    try:
        return Decision.model_validate(decided.read_json("decision.json"))
    except (FileNotFoundError, ValueError) as error:
        raise ArtifactError(f"{decided.uri}: decision.json is missing or damaged ({error})") from error


def record_rejection(store: Store, decided: Artifact, run: str, by: str) -> Artifact:
    """Remember that a person, or nobody in time, said no in `run` to the model of a decision; `by` says who."""
    with store.draft() as draft:
        return store.publish(
            draft,
            REJECTION,
            decided.manifest.recipe,
            decided.key,
            run=run,
            inputs={"decided": {"ref": decided.ref, "key": decided.key}},
            fields={},
            figures={"by": by},
        )


def find_rejection(store: Store, decided: Artifact, decision: Decision) -> Artifact | None:
    """The newest rejection (its figure `by` is a sentence) of the model that `decision` would promote, if there is one.

    None of the champion's own model: it is served already.
    """
    if not decision.promote or decision.is_champion:
        return None
    return store.find(REJECTION, decided.manifest.recipe, decided.key, {"decided": decided})


class DeploymentLog:
    """Numbered records in the store, each created exclusively; the highest number wins."""

    def __init__(self, store: Store) -> None:
        """`store` is where releases live too."""
        self._store = store

    def numbers(self) -> list[int]:
        """Numbers of all deployments, ascending; files that are no records are passed over."""
        names = self._store.list(DEPLOYMENTS)
        return sorted(int(name.removesuffix(".json")) for name in names if RECORD.fullmatch(name))

    def latest(self) -> Deployment | None:
        """The deployment that is live, or None before the first."""
        numbers = self.numbers()
        return self.get(numbers[-1]) if numbers else None

    def get(self, number: int) -> Deployment:
        """Deployment `number`. Raises ArtifactError where there is none or it cannot be read."""
        ref = f"{DEPLOYMENTS}/{number:06d}.json"
        content = self._store.read(ref)
        if content is None:
            raise ArtifactError(f"no deployment {number}; there are: {self.numbers()}")
        try:
            record = Deployment.model_validate_json(content)
        except ValidationError as error:
            raise ArtifactError(f"{self._store.address(ref)} is damaged: {error.errors()[0]['msg']}") from error
        if record.number != number:
            raise ArtifactError(f"{self._store.address(ref)} is damaged: it is the record of {record.number}")
        return record

    def append(self, releases: dict[str, str], *, after: int, run: str, reason: str) -> Deployment:
        """Record the deployment that follows number `after` (0: none yet).

        Raises ConflictError where another was recorded meanwhile: nothing is overwritten.
        """
        newest = max(self.numbers(), default=0)
        if newest != after:
            raise ConflictError(f"deployment {newest} is live, not {after}: another run deployed meanwhile")
        record = Deployment(number=after + 1, created=datetime.now(UTC), run=run, reason=reason, releases=releases)
        content = record.model_dump_json(indent=1).encode()
        if not self._store.create(f"{DEPLOYMENTS}/{record.number:06d}.json", content):
            raise ConflictError(f"deployment {record.number} exists already: another run deployed meanwhile")
        return record

    def one_back(self) -> Deployment:
        """The deployment whose map came before the current one, on the path that leads to it.

        Raises RefusedError where there is none, or where a recipe that is live would be left without a release.
        """
        path: list[Deployment] = []
        for record in map(self.get, self.numbers()):
            # A map that comes again is a way back to it: what lay between was given up.
            known = next((place for place, item in enumerate(path) if item.releases == record.releases), len(path))
            path[known:] = [record]
        if len(path) < 2:
            raise RefusedError("there is no deployment before this one to roll back to")
        target, missing = path[-2], sorted(path[-1].releases.keys() - path[-2].releases.keys())
        if missing:
            raise RefusedError(
                f"deployment {target.number}, the one before, has no release of {', '.join(missing)}, so nothing would "
                f"answer for it; to go there all the same, name it: {target.number}"
            )
        return target

    def served(self, recipe: str) -> list[str]:
        """Refs of the releases of `recipe` on the way to the one that is live, that one last.

        A release that comes again is a way back to it: what lay between was given up, and is left out.
        Raises ArtifactError where a record cannot be read.
        """
        path: list[str] = []
        for record in map(self.get, self.numbers()):
            ref = record.releases.get(recipe)
            if ref is not None:
                path[path.index(ref) if ref in path else len(path) :] = [ref]
        return path

    def champion(self, recipe: str) -> Artifact | None:
        """The release that the newest deployment names for `recipe`, or None.

        Raises ArtifactError where it is named but cannot be read: a gate must not pass for want of a champion.
        """
        latest = self.latest()
        ref = latest.releases.get(recipe) if latest else None
        return self._store.open(ref) if ref else None
