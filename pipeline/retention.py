"""Retention: what no rollback, no comparison and no night to come can need is deleted: a store stays of a size."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.artifacts import Artifact, Store
from pipeline.champions import rank_served
from pipeline.errors import ArtifactError
from pipeline.recipe import METRICS
from pipeline.releases import DeploymentLog, read_card
from pipeline.settings import Settings

log = logging.getLogger(__name__)

#: What may go. Decisions stay: they are small, and each says why a night ended as it did.
KINDS = ("validate", "rejected-data", "tokenize", "train", "evaluate", "release")


@dataclass(frozen=True)
class Outdated:
    """What can be deleted: artifacts, with their bytes, and the numbers of the deployments that stay whole."""

    artifacts: tuple[Artifact, ...]
    deployments: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(artifact.size for artifact in self.artifacts)


def find_outdated(store: Store, settings: Settings) -> Outdated:
    """What can be deleted of `store`.

    Kept, each with all that it was made from: the releases of the newest `keep_deployments` deployments, of every
    recipe the best release before them (the gate compares with it), whatever is younger than `keep_days`, and the
    newest artifact of each kind. Raises ArtifactError where a deployment cannot be read: then nothing is known.
    """
    records = DeploymentLog(store)
    kept = [records.get(number) for number in records.numbers()[-settings.keep_deployments :]]
    everything = {artifact.ref: artifact for artifact in _all(store)}
    since = datetime.now(UTC) - timedelta(days=settings.keep_days)
    roots = {ref for record in kept for ref in record.releases.values()}
    roots |= {release.ref for release in _best(store, set().union(*(record.releases for record in kept)))}
    roots |= {ref for ref, artifact in everything.items() if artifact.manifest.created >= since}
    roots |= set(_newest(everything.values()))
    needed = _with_ancestors(roots, everything)
    return Outdated(
        tuple(artifact for ref, artifact in everything.items() if ref not in needed),
        tuple(record.number for record in kept),
    )


def delete_outdated(store: Store, settings: Settings, outdated: Outdated) -> None:
    """Delete it from the store, and of this machine's BentoML stores what belongs to it."""
    from pipeline.bento import forget_bentos

    for artifact in outdated.artifacts:
        store.prune(artifact)
        log.info("deleted %s", artifact.ref)
    releases = [item.ref for item in outdated.artifacts if item.manifest.kind == "release"]
    forget_bentos(settings, outdated.deployments, releases)


def _all(store: Store) -> Iterator[Artifact]:
    for kind in KINDS:
        for recipe in store.list(kind):
            for ref in store.refs(kind, recipe):
                try:
                    yield store.open(ref)
                except ArtifactError as error:
                    # Whose manifest cannot be read, nobody knows what it was: that is for a person.
                    log.warning("left alone: %s", error)


def _best(store: Store, recipes: Iterable[str]) -> Iterator[Artifact]:
    for name in recipes:
        champion = DeploymentLog(store).champion(name)
        if champion is None:
            continue
        metric = METRICS[read_card(champion).kind][0]
        for sample in (True, False):
            yield from rank_served(store, name, metric, sample=sample, notes=[])[:1]


def _newest(artifacts: Iterable[Artifact]) -> Iterator[str]:
    newest: dict[tuple[str, str], Artifact] = {}
    for artifact in artifacts:
        place = artifact.manifest.kind, artifact.manifest.recipe
        if place not in newest or artifact.manifest.created > newest[place].manifest.created:
            newest[place] = artifact
    yield from (artifact.ref for artifact in newest.values())


def _with_ancestors(roots: set[str], everything: dict[str, Artifact]) -> set[str]:
    needed: set[str] = set()
    waiting = list(roots)
    while waiting:
        ref = waiting.pop()
        if ref not in needed:
            needed.add(ref)
            waiting += [item.ref for item in everything[ref].manifest.inputs.values()] if ref in everything else []
    return needed
