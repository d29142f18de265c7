"""The append-only deployment log, and the releases that were live before the champion."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, Literal

from pydantic import Field

from pipeline.errors import ArtifactError, BaseModelError, BrokenModelError, ConflictError, RefusedError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.formats import Record

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


#: Intents of a deployment: serve a new model, serve an earlier deployment again, remove one that failed once live.
Intent = Literal["promotion", "rollback", "undo"]
#: Reasons of records of format 1, which stated their intent only there.
OLD_INTENTS: tuple[tuple[Intent, re.Pattern[str]], ...] = (
    ("rollback", re.compile(r"rollback to deployment (\d+)")),
    ("undo", re.compile(r"undoes deployment (\d+)")),
)


class Deployment(Record):
    """An immutable, numbered map from recipe to release."""

    format: int = 2
    number: int = Field(ge=1)
    created: datetime
    run: str
    reason: str
    releases: dict[str, str] = Field(description="recipe to the ref of its release")
    intent: Intent = "promotion"
    of: int | None = Field(default=None, description="deployment that a rollback restores or that an undo removes")
    by: str | None = Field(default=None, description="person who asked for it; None for a scheduled run")

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return a document of format 1 with the intent that its reason states."""
        for intent, pattern in OLD_INTENTS:
            if found := pattern.match(str(document.get("reason"))):
                return document | {"intent": intent, "of": int(found[1])}
        return document


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
            record = Deployment.parse(content, self._store.address(ref))
        except ValueError as error:
            raise ArtifactError(f"{self._store.address(ref)} is damaged: {error}") from error
        if record.number != number:
            raise ArtifactError(f"{self._store.address(ref)} is damaged: it records deployment {record.number}")
        return record

    def append(
        self,
        releases: dict[str, str],
        *,
        after: int,
        run: str,
        reason: str,
        intent: Intent = "promotion",
        of: int | None = None,
        by: str | None = None,
    ) -> Deployment:
        """Record the deployment after number `after` (0: none yet).

        Raises ConflictError if another deployment was recorded meanwhile; nothing is overwritten.
        """
        newest = max(self.numbers(), default=0)
        if newest != after:
            raise ConflictError(f"deployment {newest} is live, not {after}: another run deployed meanwhile; run again")
        record = Deployment(
            number=after + 1,
            created=datetime.now(UTC),
            run=run,
            reason=reason,
            releases=releases,
            intent=intent,
            of=of,
            by=by,
        )
        content = record.model_dump_json(indent=1).encode()
        if not self._store.create(f"{DEPLOYMENTS}/{record.number:06d}.json", content):
            raise ConflictError(f"deployment {record.number} already exists: another run deployed meanwhile; run again")
        return record

    def one_back(self) -> Deployment:
        """Return the deployment to roll back to: the one that was live before the current one was promoted.

        Raises RefusedError if there is none, or if a live recipe would be left without a release.
        """
        path = self.path()
        if len(path) < 2:
            raise RefusedError(
                "the releases of the first deployment are live, so there is nothing earlier to roll back to"
            )
        target, missing = path[-2], sorted(path[-1].releases.keys() - path[-2].releases.keys())
        if missing:
            raise RefusedError(
                f"the previous deployment, {target.number}, has no release of {', '.join(missing)}, which would no "
                f"longer be served; to roll back anyway, specify the number {target.number}"
            )
        return target

    def path(self) -> tuple[Deployment, ...]:
        """Return the deployments that led to the live one, in order; empty before the first. See `paths`."""
        return next(reversed(self.paths().values()), ())

    def paths(self) -> dict[int, tuple[Deployment, ...]]:
        """Return for each deployment, by number, the deployments that led to it, in order.

        A rollback continues the path of the deployment that it restores, an undo the path before the deployment that it
        removes, up to the first one that another undo removed. The deployments in between are left out. Raises
        ArtifactError if a record is damaged.
        """
        before: dict[int, tuple[Deployment, ...]] = {}
        after: dict[int, tuple[Deployment, ...]] = {}
        undone: set[int | None] = set()
        path: tuple[Deployment, ...] = ()
        for record in map(self.get, self.numbers()):
            before[record.number] = path
            path = after[record.number] = _continued(record, path, before, after, undone)
            undone |= {record.of} if record.intent == "undo" else set()
        return after

    def served(self, recipe: str) -> list[str]:
        """Return the refs of the releases of `recipe` that led to the live one, in order, the live one last."""
        return served_on(self.path(), recipe)

    def promotion(self, recipe: str, release: str) -> Deployment | None:
        """Return the deployment by which `release` became the champion of `recipe`; None if it is not the champion."""
        found = None
        for number in reversed(self.numbers()):
            deployment = self.get(number)
            if deployment.releases.get(recipe) != release:
                break
            found = deployment
        return found

    def champion(self, recipe: str) -> Artifact | None:
        """Return the live release of `recipe`, or None if it has none.

        Raises ArtifactError if the release is unreadable: a gate must not pass because the champion is missing.
        """
        latest = self.latest()
        ref = latest.releases.get(recipe) if latest else None
        return self._store.open(ref) if ref else None


def _continued(
    record: Deployment,
    path: tuple[Deployment, ...],
    before: Mapping[int, tuple[Deployment, ...]],
    after: Mapping[int, tuple[Deployment, ...]],
    undone: Collection[int | None],
) -> tuple[Deployment, ...]:
    """Return the path to `record`, given the path to its predecessor and the paths before and after earlier records.

    `undone` are the numbers of the deployments that were removed before it.
    """
    of = record.of or 0
    if record.intent == "rollback" and of in after:
        return after[of]
    if record.intent == "undo" and of in before:
        # A later deployment still contains the release that an earlier undo removed.
        kept = tuple(takewhile(lambda earlier: earlier.number not in undone, before[of]))
        # If other recipes were deployed since, only this record has their releases without the failed one.
        return kept if record.releases == (kept[-1].releases if kept else {}) else (*kept, record)
    return (*path, record)


def served_on(path: Iterable[Deployment], recipe: str) -> list[str]:
    """Return the refs of the releases of `recipe` on a path, in order; each once, at its last position."""
    refs: dict[str, None] = {}
    for record in path:
        ref = record.releases.get(recipe)
        if ref is not None:
            refs.pop(ref, None)
            refs[ref] = None
    return list(refs)
