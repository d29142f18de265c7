"""Acceptances: a person's decision to use a daily file although it is unusual, recorded by the file's digest."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from pipeline.store.artifacts import Artifact, Store

#: Kind of the artifact that records an acceptance.
ACCEPTANCE = "acceptance"


class Acceptance(BaseModel):
    """Who accepted a file, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    why: str

    def __str__(self) -> str:
        """Return the acceptance as a phrase for messages."""
        return f"accepted by {self.by}: {self.why}"


def record_acceptance(store: Store, recipe: str, file: str, digest: str, given: Acceptance, run: str) -> Artifact:
    """Record that the content `digest` (SHA-256) of the daily file named `file` was accepted."""
    with store.draft() as draft:
        fields = {"file": file, "sha256": digest}
        figures = given.model_dump()
        return store.publish(
            draft, ACCEPTANCE, recipe, _key(digest), run=run, inputs={}, fields=fields, figures=figures
        )


def find_acceptances(store: Store, recipe: str, digests: Collection[str]) -> dict[str, Acceptance]:
    """Return the newest acceptance of each digest in `digests` that has one."""
    recorded = set(store.list(f"{ACCEPTANCE}/{recipe}"))
    found = {}
    for digest in digests:
        # Most files have none: do not ask the store for each of them.
        artifact = store.find(ACCEPTANCE, recipe, _key(digest), {}) if _key(digest) in recorded else None
        if artifact and artifact.manifest.fields["sha256"] == digest:
            found[digest] = Acceptance.model_validate(artifact.manifest.figures)
    return found


def _key(digest: str) -> str:
    return digest[:16]
