"""The runs that a store records, each with its decision and the place of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal

from pipeline.errors import ArtifactError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import RejectedDataFigures
from pipeline.store.manifest import attempt_of

DECIDE, REJECTED = "decide", "rejected-data"
Outcome = Literal["deployed", "approved by the gate", "refused", "needs a person", "data rejected", "unreadable"]


@dataclass(frozen=True)
class PastRun:
    """One run of a recipe that had new data or a new recipe. `page` is the URI of its report, or of its data docs."""

    run: str
    recipe: str
    created: datetime | None
    outcome: Outcome
    deployment: int | None
    reason: str
    page: str

    def document(self) -> dict[str, Any]:
        """Return its fields for `--json`."""
        return self.__dict__ | {"created": self.created.isoformat() if self.created else None}


def past_runs(store: Store, recipe: str | None, count: int) -> list[PastRun]:
    """Return the newest `count` runs, newest first; of one recipe, or of all if it is None.

    A run that reused the decision of an earlier one is not listed. Raises ArtifactError if the deployment log
    is damaged.
    """
    recipes = [recipe] if recipe else sorted({*store.list(DECIDE), *store.list(REJECTED)})
    refs = [ref for kind in (DECIDE, REJECTED) for name in recipes for ref in store.refs(kind, name)]
    numbers = _deployments(store)
    return list(islice(_read(store, sorted(refs, key=attempt_of, reverse=True), numbers), count))


def _deployments(store: Store) -> dict[tuple[str, str], int]:
    """Map the run and the recipe of each promotion to the number of its deployment."""
    log = DeploymentLog(store)
    found: dict[tuple[str, str], int] = {}
    before: Mapping[str, str] = {}
    for number in log.numbers():
        record = log.get(number)
        changed = [name for name, ref in record.releases.items() if before.get(name) != ref]
        if record.intent == "promotion":
            found |= {(record.run, name): number for name in changed}
        before = record.releases
    return found


def _read(store: Store, refs: list[str], numbers: Mapping[tuple[str, str], int]) -> Iterator[PastRun]:
    for ref in refs:
        kind, recipe = ref.split("/")[:2]
        try:
            artifact = store.open(ref)
            yield _rejected(artifact) if kind == REJECTED else _decided(artifact, numbers)
        except ArtifactError as error:
            yield PastRun("", recipe, None, "unreadable", None, str(error), store.address(ref))


def _decided(decided: Artifact, numbers: Mapping[tuple[str, str], int]) -> PastRun:
    manifest, decision = decided.manifest, read_decision(decided)
    number = numbers.get((manifest.run, manifest.recipe))
    outcome: Outcome = "approved by the gate" if decision.promote else "refused"
    if number is not None:
        outcome = "deployed"
    elif decision.needs_person:
        outcome = "needs a person"
    page = f"{decided.uri}/report.html"
    return PastRun(manifest.run, manifest.recipe, manifest.created, outcome, number, decision.why, page)


def _rejected(artifact: Artifact) -> PastRun:
    manifest = artifact.manifest
    reason = "; ".join(RejectedDataFigures.read(artifact).reasons)
    page = f"{artifact.uri}/docs/index.html"
    return PastRun(manifest.run, manifest.recipe, manifest.created, "data rejected", None, reason, page)
