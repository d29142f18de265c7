"""The append-only deployment log, and the releases that were live before the champion."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ArtifactError, BaseModelError, BrokenModelError, ConflictError, PrunedError, RefusedError
from pipeline.store.artifacts import Artifact, Store

DEPLOYMENTS = "deployments"
#: File in a Bento with the deployment that it serves, next to the packages.
BAKED_DEPLOYMENT = "deployment.json"
RECORD = re.compile(r"\d{6,}\.json")
#: Errors raised by reading or running an earlier model that is damaged, lost or of an older version of the code; torch
#: raises RuntimeError. StoreError is not among them: the store may be unavailable only temporarily.
UNREADABLE = (
    ArtifactError,
    BaseModelError,
    BrokenModelError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Deployment(BaseModel):
    """An immutable, numbered map from recipe to release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    created: datetime
    run: str
    reason: str
    releases: dict[str, str] = Field(description="recipe to the ref of its release")


class DeploymentLog:
    """Numbered records in the store, each created exclusively; the highest number wins."""

    def __init__(self, store: Store) -> None:
        """Open the log in `store`, which also contains the releases."""
        self._store = store

    def numbers(self) -> list[int]:
        """Return the numbers of all deployments, ascending; other files are ignored."""
        names = self._store.list(DEPLOYMENTS)
        return sorted(int(name.removesuffix(".json")) for name in names if RECORD.fullmatch(name))

    def latest(self) -> Deployment | None:
        """Return the live deployment, or None before the first."""
        numbers = self.numbers()
        return self.get(numbers[-1]) if numbers else None

    def get(self, number: int) -> Deployment:
        """Return deployment `number`. Raises ArtifactError if it does not exist or is damaged."""
        ref = f"{DEPLOYMENTS}/{number:06d}.json"
        content = self._store.read(ref)
        if content is None:
            raise ArtifactError(f"there is no deployment {number}; existing deployments: {self.numbers()}")
        try:
            record = Deployment.model_validate_json(content)
        except ValidationError as error:
            raise ArtifactError(f"{self._store.address(ref)} is damaged: {error.errors()[0]['msg']}") from error
        if record.number != number:
            raise ArtifactError(f"{self._store.address(ref)} is damaged: it records deployment {record.number}")
        return record

    def append(self, releases: dict[str, str], *, after: int, run: str, reason: str) -> Deployment:
        """Record the deployment after number `after` (0: none yet).

        Raises ConflictError if another deployment was recorded meanwhile; nothing is overwritten.
        """
        newest = max(self.numbers(), default=0)
        if newest != after:
            raise ConflictError(f"deployment {newest} is live, not {after}: another run deployed meanwhile")
        record = Deployment(number=after + 1, created=datetime.now(UTC), run=run, reason=reason, releases=releases)
        content = record.model_dump_json(indent=1).encode()
        if not self._store.create(f"{DEPLOYMENTS}/{record.number:06d}.json", content):
            raise ConflictError(f"deployment {record.number} already exists: another run deployed meanwhile")
        return record

    def one_back(self) -> Deployment:
        """Return the deployment to roll back to: the one before the current map of releases.

        Raises RefusedError if there is none, or if a live recipe would be left without a release.
        """
        path: list[Deployment] = []
        for record in map(self.get, self.numbers()):
            # A repeated map is a rollback; drop the deployments in between.
            known = next((place for place, item in enumerate(path) if item.releases == record.releases), len(path))
            path[known:] = [record]
        if len(path) < 2:
            raise RefusedError("there is no deployment before this one to roll back to")
        target, missing = path[-2], sorted(path[-1].releases.keys() - path[-2].releases.keys())
        if missing:
            raise RefusedError(
                f"the previous deployment, {target.number}, has no release of {', '.join(missing)}, which would no "
                f"longer be served; to roll back anyway, specify the number {target.number}"
            )
        return target

    def served(self, recipe: str) -> list[str]:
        """Return the refs of the releases of `recipe` that led to the live one, in order, the live one last.

        A repeated release is a rollback: the releases in between are left out.
        Raises ArtifactError if a record is damaged.
        """
        path: list[str] = []
        for record in map(self.get, self.numbers()):
            ref = record.releases.get(recipe)
            if ref is not None:
                path[path.index(ref) if ref in path else len(path) :] = [ref]
        return path

    def champion(self, recipe: str) -> Artifact | None:
        """Return the live release of `recipe`, or None if it has none.

        Raises ArtifactError if the release is unreadable: a gate must not pass because the champion is missing.
        """
        latest = self.latest()
        ref = latest.releases.get(recipe) if latest else None
        return self._store.open(ref) if ref else None


def rank_served(store: Store, name: str, metric: str, *, sample: bool, notes: list[str]) -> list[Artifact]:
    """Return the releases of recipe `name` that were live before its champion, sorted by their gate metric, best first.

    `sample` selects releases trained on sample data or on real data. Pruned releases are skipped; unreadable ones are
    skipped and reported in `notes`.
    """
    try:
        earlier = DeploymentLog(store).served(name)[:-1]
    except ArtifactError as error:
        notes.append(f"the deployment log cannot be read ({error}); the model was not compared with earlier releases")
        return []
    ranked: list[tuple[float, Artifact]] = []
    for ref in earlier:
        try:
            # Read only manifests here, one small file per deployment; the caller loads one model.
            release = store.open(ref)
            figures = release.input("evaluated").figures
            value = float(figures["gate"][metric]["value"])
            fitting = figures["sample"] == sample and not math.isnan(value)
        except PrunedError:
            # The best release is never pruned, so a pruned one cannot be the best.
            continue
        except UNREADABLE as error:
            notes.append(unread_note(ref, error))
            continue
        if fitting:
            ranked.append((value, release))
    return [release for _, release in sorted(ranked, key=lambda item: item[0], reverse=True)]


def unread_note(ref: str, error: Exception) -> str:
    """Return the note of a decision about an earlier release that cannot be read."""
    return f"the earlier release {ref} cannot be read ({error}); the model was not compared with it"
