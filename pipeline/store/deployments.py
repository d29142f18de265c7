"""The append-only deployment log, and the releases that were served before the champion."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ArtifactError, BaseModelError, BrokenModelError, ConflictError, PrunedError, RefusedError
from pipeline.store.artifacts import Artifact, Store

DEPLOYMENTS = "deployments"
RECORD = re.compile(r"\d{6,}\.json")
#: What reading or asking the model of another night raises where that is damaged, lost or of older code: figures of
#: another form, and torch's own errors, which are of no kind of theirs. Never StoreError: the store may come back.
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


def rank_served(store: Store, name: str, metric: str, *, sample: bool, notes: list[str]) -> list[Artifact]:
    """Releases of recipe `name` that were served before its champion, the best on its own night's gate side first.

    Only those of the sample, or only those of real data. Ones that were pruned are passed over; ones that cannot be
    read are, too, and named in `notes`.
    """
    try:
        earlier = DeploymentLog(store).served(name)[:-1]
    except ArtifactError as error:
        notes.append(f"the deployment log cannot be read ({error}); no earlier release was compared with")
        return []
    ranked: list[tuple[float, Artifact]] = []
    for ref in earlier:
        try:
            # Manifests alone: as many small files as there were deployments, and one model in the end.
            release = store.open(ref)
            figures = release.input("evaluated").figures
            value = float(figures["gate"][metric]["value"])
            fitting = figures["sample"] == sample and not math.isnan(value)
        except PrunedError:
            # The best is never pruned, so it was none.
            continue
        except UNREADABLE as error:
            notes.append(unread_note(ref, error))
            continue
        if fitting:
            ranked.append((value, release))
    return [release for _, release in sorted(ranked, key=lambda item: item[0], reverse=True)]


def unread_note(ref: str, error: Exception) -> str:
    """Return the sentence in which a decision names an earlier release that cannot be read."""
    return f"the earlier release {ref} cannot be read ({error}); it was not compared with"
