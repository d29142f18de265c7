"""Retention: what no rollback, no comparison and no night to come can need is deleted: a store stays of a size."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.errors import ArtifactError, PrunedError
from pipeline.recipes.schema import METRICS
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog, rank_served
from pipeline.store.releases import read_card

log = logging.getLogger(__name__)

#: What may go. Decisions stay: they are small, and each says why a night ended as it did.
KINDS = ("validate", "rejected-data", "tokenize", "train", "evaluate", "release")


@dataclass(frozen=True)
class Outdated:
    """What can be deleted: artifacts, with their bytes, and the numbers of the deployments that stay whole.

    `remains` are refs of artifacts whose deletion was cut off before.
    """

    artifacts: tuple[Artifact, ...]
    deployments: tuple[int, ...]
    remains: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(artifact.size for artifact in self.artifacts)


def find_outdated(store: Store, settings: Settings) -> Outdated:
    """What can be deleted of `store`.

    Kept, each with all that it was made from: the releases of the newest `keep_deployments` deployments, of every
    recipe the best release before them (the gate compares with it), whatever is younger than `keep_days`, and the
    newest artifact of each kind. Raises ArtifactError where a deployment cannot be read, or the manifest of what is
    kept: then it is not known what that needs.
    """
    records = DeploymentLog(store)
    kept = [records.get(number) for number in records.numbers()[-settings.keep_deployments :]]
    everything, unread = _everything(store)
    damaged = {ref: error for ref, error in unread.items() if not isinstance(error, PrunedError)}
    since = datetime.now(UTC) - timedelta(days=settings.keep_days)
    roots = {ref for record in kept for ref in record.releases.values()}
    roots |= {release.ref for release in _best(store, set().union(*(record.releases for record in kept)))}
    roots |= {ref for ref, artifact in everything.items() if artifact.manifest.created >= since}
    roots |= set(_newest(everything.values()))
    needed = _with_ancestors(roots, everything)
    if unknown := needed & damaged.keys():
        raise damaged[min(unknown)]
    for error in damaged.values():
        # Nobody knows what it was: that is for a person.
        log.warning("left alone: %s", error)
    return Outdated(
        tuple(artifact for ref, artifact in everything.items() if ref not in needed),
        tuple(record.number for record in kept),
        tuple(unread.keys() - damaged.keys()),
    )


def delete_outdated(store: Store, settings: Settings, outdated: Outdated) -> None:
    """Delete it from the store, and of this machine's BentoML stores what belongs to it.

    A deletion that is cut off is made whole by the next one.
    """
    from pipeline.deployment.bento import forget_bentos

    # First, since what is gone from the store is not found again. The store's come after those made from them.
    releases = [item.ref for item in outdated.artifacts if item.manifest.kind == "release"]
    forget_bentos(settings, outdated.deployments, releases)
    for artifact in reversed(outdated.artifacts):
        store.prune(artifact)
        log.info("deleted %s", artifact.ref)
    for ref in outdated.remains:
        store.sweep(ref)


def _everything(store: Store) -> tuple[dict[str, Artifact], dict[str, ArtifactError]]:
    """All that may go, by ref, inputs before what was made from them; and why the others cannot be read."""
    found: dict[str, Artifact] = {}
    unread: dict[str, ArtifactError] = {}
    for ref in (ref for kind in KINDS for recipe in store.list(kind) for ref in store.refs(kind, recipe)):
        try:
            found[ref] = store.open(ref)
        except ArtifactError as error:
            unread[ref] = error
    return found, unread


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
