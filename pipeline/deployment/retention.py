"""Retention: delete artifacts that no rollback, comparison or future run can need, so that the store stops growing."""

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

#: Kinds that may be deleted. Decisions stay: they are small, and explain the result of each run.
PRUNED_KINDS = ("validate", "rejected-data", "tokenize", "train", "evaluate", "release")


@dataclass(frozen=True)
class Outdated:
    """Artifacts that can be deleted, and the numbers of the deployments that are retained.

    `remains` are refs of artifacts whose deletion was interrupted.
    """

    artifacts: tuple[Artifact, ...]
    deployments: tuple[int, ...]
    remains: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the total size of the artifacts in bytes."""
        return sum(artifact.size for artifact in self.artifacts)


def find_outdated(store: Store, settings: Settings) -> Outdated:
    """Return the artifacts of `store` that can be deleted.

    Retained, each with all its inputs: the releases of the newest `keep_deployments` deployments, the best earlier
    release of every recipe (the gate compares with it), artifacts younger than `keep_days`, and the newest artifact of
    each kind. Raises ArtifactError if a deployment or the manifest of a retained artifact cannot be read, because its
    inputs are then unknown.
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
        # Its content is unknown, so a person must decide.
        log.warning("not deleted: %s", error)
    return Outdated(
        tuple(artifact for ref, artifact in everything.items() if ref not in needed),
        tuple(record.number for record in kept),
        tuple(unread.keys() - damaged.keys()),
    )


def delete_outdated(store: Store, settings: Settings, outdated: Outdated) -> None:
    """Delete the outdated artifacts from the store, and their copies from this machine's BentoML stores.

    The next call completes an interrupted deletion.
    """
    from pipeline.deployment.bento import forget_bentos

    # The BentoML copies first, because artifacts deleted from the store are not found again. In the store, delete an
    # artifact after the ones that were built from it.
    releases = [item.ref for item in outdated.artifacts if item.manifest.kind == "release"]
    forget_bentos(settings, outdated.deployments, releases)
    for artifact in reversed(outdated.artifacts):
        store.prune(artifact)
        log.info("deleted %s", artifact.ref)
    for ref in outdated.remains:
        store.sweep(ref)


def _everything(store: Store) -> tuple[dict[str, Artifact], dict[str, ArtifactError]]:
    """Return the artifacts of `PRUNED_KINDS` by ref, inputs first, and the errors of the ones that cannot be read."""
    found: dict[str, Artifact] = {}
    unread: dict[str, ArtifactError] = {}
    for ref in (ref for kind in PRUNED_KINDS for recipe in store.list(kind) for ref in store.refs(kind, recipe)):
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
