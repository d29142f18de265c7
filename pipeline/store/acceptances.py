"""Acceptances: a person's decision to use a daily file although it is unusual, for this day and this content."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from pipeline.errors import ArtifactError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.figures import Figures

log = logging.getLogger(__name__)

#: Kind of the artifact that records an acceptance.
ACCEPTANCE = "acceptance"


class Acceptance(Figures):
    """Who accepted a file, and why."""

    by: str
    why: str

    def __str__(self) -> str:
        """Return the acceptance as a phrase for messages."""
        return f"accepted by {self.by}: {self.why}"


def record_acceptance(store: Store, recipe: str, file: str, digest: str, given: Acceptance, run: str) -> Artifact:
    """Record that the content `digest` (SHA-256) of the daily file named `file` was accepted."""
    with store.draft() as draft:
        fields = {"file": file, "sha256": digest}
        return store.publish(
            draft, ACCEPTANCE, recipe, _key(digest), run=run, inputs={}, fields=fields, figures=given.document()
        )


def find_acceptances(store: Store, recipe: str, days: Mapping[str, str]) -> dict[str, Acceptance]:
    """Return the newest acceptance of each day in `days` that has one; `days` are the digests of the files by date.

    A file that arrives on a second day with the same content is not accepted. Raises ArtifactError if an acceptance is
    damaged.
    """
    recorded = set(store.list(f"{ACCEPTANCE}/{recipe}"))
    found = {}
    for day, digest in days.items():
        # Most files have none: do not ask the store for each of them.
        records = _records(store, f"{ACCEPTANCE}/{recipe}/{_key(digest)}") if _key(digest) in recorded else ()
        fields = {"sha256": digest, "day": day}
        given = next((item for item in records if _accepted(item) == fields), None)
        if given:
            found[day] = Acceptance.read(given)
    return found


def _records(store: Store, folder: str) -> Iterator[Artifact]:
    """Yield the readable records in a folder, newest first."""
    for attempt in reversed(store.list(folder)):
        try:
            yield store.open(f"{folder}/{attempt}")
        except ArtifactError as error:
            log.warning("an acceptance does not count: %s", error)


def _accepted(record: Artifact) -> dict[str, str]:
    """Return the digest and the day that a record accepts. The directory of the file may have another name now."""
    fields = record.manifest.fields
    return {"sha256": fields["sha256"], "day": PurePath(fields["file"]).stem}


def _key(digest: str) -> str:
    return digest[:16]
