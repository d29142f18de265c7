"""Arrivals that the champion was trained on and that have no file any more, as a validation records them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.errors import ArtifactError
from pipeline.store.artifacts import Artifact
from pipeline.store.manifest import attempt_of
from pipeline.texts import some_of

#: Field of a validation's manifest with their dates.
GONE = "gone"


def gone_sentence(gone: Sequence[str]) -> str:
    """Return a sentence, without a full stop, that names the dates `gone` and says what to do."""
    days = "1 day" if len(gone) == 1 else f"{len(gone):,} days"
    return (
        f"{days} of arrivals that the champion was trained on {'has' if len(gone) == 1 else 'have'} no file any more: "
        f"{some_of(gone)}; restore the files unless they were deleted on purpose"
    )


def newly_gone(validated: Artifact, run: str) -> list[str]:
    """Return the dates of gone arrivals that no earlier validation recorded; empty if `run` did not build this one."""
    gone = validated.manifest.fields.get(GONE, [])
    if not gone or validated.manifest.run != run:
        return []
    before = next(_earlier(validated), None)
    return sorted(set(gone) - set(before.manifest.fields.get(GONE, []) if before else []))


def _earlier(validated: Artifact) -> Iterator[Artifact]:
    """Yield the earlier validations of the recipe that can be read, newest first."""
    store, recipe = validated.store, validated.manifest.recipe
    for ref in store.refs(validated.manifest.kind, recipe):
        if attempt_of(ref) < attempt_of(validated.ref):
            try:
                yield store.open(ref)
            except ArtifactError:
                continue
