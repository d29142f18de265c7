"""Acceptances: a person's decision to use a daily file although it is unusual, recorded by the file's digest."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.store.artifacts import Artifact, Store
from pipeline.store.figures import Figures

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


def find_acceptances(store: Store, recipe: str, digests: Collection[str]) -> dict[str, Acceptance]:
    """Return the newest acceptance of each digest in `digests` that has one. Raises ArtifactError if one is damaged."""
    recorded = set(store.list(f"{ACCEPTANCE}/{recipe}"))
    found = {}
    for digest in digests:
        # Most files have none: do not ask the store for each of them.
        artifact = store.find(ACCEPTANCE, recipe, _key(digest), {}) if _key(digest) in recorded else None
        if artifact and artifact.manifest.fields["sha256"] == digest:
            found[digest] = Acceptance.read(artifact)
    return found


def _key(digest: str) -> str:
    return digest[:16]
