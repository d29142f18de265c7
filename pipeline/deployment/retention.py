"""Retention: delete artifacts that no rollback, comparison or future run can need, so that the store stops growing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pipeline.errors import ArtifactError, PrunedError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DEPLOYMENTS, Deployment, DeploymentLog, served_on
from pipeline.store.manifest import CHECKPOINT, attempt_of, attempt_time
from pipeline.store.verdicts import VERDICTS, open_questions

log = logging.getLogger(__name__)

#: Kinds that may be deleted. Decisions stay: they are small, and explain the result of each run.
PRUNED_KINDS = ("validate", "rejected-data", "tokenize", "train", "evaluate", "release")
#: Kind of the decisions.
DECIDE = "decide"


@dataclass(frozen=True)
class Outdated:
    """Artifacts that can be deleted, and the numbers of the deployments that are retained.

    `remains` are refs of artifacts whose deletion was interrupted, and of checkpoints of abandoned trainings. `kept`
    are the other artifacts by the first reason to keep them. `recorded` are the records on which this is based.
    """

    artifacts: tuple[Artifact, ...]
    deployments: tuple[int, ...]
    remains: tuple[str, ...] = ()
    kept: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    recorded: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Return the total size of the artifacts in bytes."""
        return sum(artifact.size for artifact in self.artifacts)


def find_outdated(store: Store, settings: Settings) -> Outdated:
    """Return the artifacts of `store` that can be deleted.

    Retained, each with all that it was made from: the releases of the newest `keep_deployments` deployments, and of
    the one that `saebyeok rollback` leads to; for each of them and every recipe the best release before it (the gate
    compares with it, also after a rollback); the models and rivals of decisions that are younger than `keep_days`, wait
    for an approval, or are the newest of their recipe; artifacts younger than `keep_days`; and the newest artifact of
    each kind. Raises ArtifactError if a deployment or the manifest of a retained artifact cannot be read, because its
    inputs are then unknown.
    """
    recorded, records = _recorded(store), DeploymentLog(store)
    kept = [records.get(number) for number in records.numbers()[-settings.keep_deployments :]]
    everything, unread = _everything(store)
    damaged = {ref: error for ref, error in unread.items() if not isinstance(error, PrunedError)}
    roots = _roots(store, settings, kept, everything)
    reasons = _reasons(roots, everything)
    needed = set(reasons)
    if unknown := needed & damaged.keys():
        raise damaged[min(unknown)]
    for error in damaged.values():
        # Its content is unknown, so a person must decide.
        log.warning("not deleted: %s", error)
    return Outdated(
        tuple(artifact for ref, artifact in everything.items() if ref not in needed),
        tuple(record.number for record in kept),
        (*(unread.keys() - damaged.keys()), *_abandoned_checkpoints(store, settings)),
        {
            reason: tuple(everything[ref] for ref, first in reasons.items() if first == reason and ref in everything)
            for reason in roots
        },
        recorded,
    )


def _roots(
    store: Store, settings: Settings, kept: Sequence[Deployment], everything: Mapping[str, Artifact]
) -> dict[str, set[str]]:
    """Return the refs of the artifacts to keep, by reason, without those that they were made from."""
    since = datetime.now(UTC) - timedelta(days=settings.keep_days)
    records, decisions = DeploymentLog(store), list(_decisions(store))
    paths, best = records.paths(), _best_before(decisions)
    return {
        f"the newest {settings.keep_deployments} deployments (SAEBYEOK_KEEP_DEPLOYMENTS)": {
            ref for record in kept for ref in record.releases.values()
        },
        "the next rollback": {ref for record in records.path()[-2:] for ref in record.releases.values()},
        "the best release before each of these": {ref for record in kept for ref in _best(paths[record.number], best)},
        "recent decisions, the newest one of each recipe, and open approvals": set(_decided(store, decisions, since)),
        f"younger than {settings.keep_days:g} days (SAEBYEOK_KEEP_DAYS)": {
            ref for ref, artifact in everything.items() if artifact.manifest.created >= since
        },
        "the newest artifact of each kind": set(_newest(everything.values())),
    }


def _reasons(roots: Mapping[str, set[str]], everything: dict[str, Artifact]) -> dict[str, str]:
    """Return the first reason to keep each artifact, by ref; an artifact is kept with all that it was made from."""
    found: dict[str, str] = {}
    for reason, refs in roots.items():
        found |= dict.fromkeys(_with_ancestors(refs, everything) - found.keys(), reason)
    return found


def delete_outdated(store: Store, settings: Settings, outdated: Outdated) -> None:
    """Delete the outdated artifacts from the store, and their copies from this machine's BentoML stores.

    The next call completes an interrupted deletion.
    """
    from pipeline.deployment.bento import forget_bentos

    # The BentoML copies first, because artifacts deleted from the store are not found again. In the store, delete an
    # artifact after the ones that were built from it.
    releases = [item.ref for item in outdated.artifacts if item.manifest.kind == "release"]
    forget_bentos(settings, outdated.deployments, releases)
    newest = outdated
    wanted = {artifact.ref for artifact in outdated.artifacts}
    for artifact in reversed(outdated.artifacts):
        # A deployment, a decision or a question in the meantime may need what could be deleted before.
        if _recorded(store) != newest.recorded:
            newest = find_outdated(store, settings)
            wanted = {item.ref for item in newest.artifacts}
        if artifact.ref not in wanted:
            log.info("kept %s: a new deployment, decision or question needs it", artifact.ref)
            continue
        store.prune(artifact)
        log.info("deleted %s", artifact.ref)
    for ref in outdated.remains:
        store.sweep(ref)


def _recorded(store: Store) -> frozenset[str]:
    """Return the paths of all records on which it depends what is retained: deployments, decisions and verdicts."""
    return frozenset(path for kind in (DEPLOYMENTS, DECIDE, VERDICTS) for path in store.files_below(kind))


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


def _abandoned_checkpoints(store: Store, settings: Settings) -> Iterator[str]:
    """Yield the refs of checkpoints that are older than `keep_days`: their training was never finished."""
    since = datetime.now(UTC) - timedelta(days=settings.keep_days)
    for recipe in store.list(CHECKPOINT):
        for ref in store.refs(CHECKPOINT, recipe):
            written = attempt_time(attempt_of(ref))
            if written is not None and written < since:
                yield ref


def _decisions(store: Store) -> Iterator[Artifact]:
    """Yield all decisions, for each recipe the newest first."""
    for ref in (ref for recipe in store.list(DECIDE) for ref in store.refs(DECIDE, recipe)):
        try:
            yield store.open(ref)
        except ArtifactError as error:
            log.warning("a decision cannot be read, so its inputs are not retained: %s", error)


def _best_before(decisions: Iterable[Artifact]) -> dict[str, str]:
    """Map each champion to the best release before it (refs), by the newest decision that compared with both.

    The metrics of the releases' own runs do not tell which release is the best, because they were measured on other
    rows.
    """
    found: dict[str, str] = {}
    for decided in decisions:
        champion, best = decided.input_ref("champion"), decided.input_ref("best")
        if champion and best:
            found.setdefault(champion, best)
    return found


def _best(path: Sequence[Deployment], best: Mapping[str, str]) -> Iterator[str]:
    """Yield for each recipe the best release before the last one on `path`, given the best before each champion.

    If no decision has compared them yet, it is the release before it or the best before that.
    """
    for recipe in path[-1].releases if path else ():
        *before, last = served_on(path, recipe)[-2:]
        if last in best:
            yield best[last]
            continue
        yield from before
        yield from (best[ref] for ref in before if ref in best)


def _decided(store: Store, decisions: Iterable[Artifact], since: datetime) -> Iterator[str]:
    """Yield the refs of the evaluations and rivals of decisions that a person or a run may still act on."""
    waiting = {question.decided for question in open_questions(store, datetime.now(UTC))}
    seen: set[str] = set()
    for decided in decisions:
        newest = decided.manifest.recipe not in seen
        seen.add(decided.manifest.recipe)
        if newest or decided.ref in waiting or decided.manifest.created >= since:
            yield from (item.ref for item in decided.manifest.inputs.values())


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
            waiting += _needs(everything[ref]) if ref in everything else []
    return needed


def _needs(artifact: Artifact) -> list[str]:
    """Return the refs of the inputs without which an artifact is incomplete.

    A model is complete without the one that it started from, unless it was trained by an older version, which did not
    record the data that it has seen (`pipeline.store.seen_data`).
    """
    if artifact.manifest.kind == "train" and "seen" not in artifact.manifest.figures:
        return [item.ref for item in artifact.manifest.inputs.values()]
    return artifact.made_from
