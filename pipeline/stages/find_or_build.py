"""The common part of all stages: find the artifact by its key, or build it in a tracked run and publish it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.job import Job
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import Figures
from pipeline.store.manifest import Input, Role, make_key
from pipeline.tracking.lineage import STAGE_OF
from pipeline.tracking.runs import tracked
from pipeline.tracking.tables import show
from pipeline.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def find_or_build(
    job: Job,
    kind: str,
    version: int,
    *,
    fields: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    started_from: Mapping[str, Artifact] | None = None,
    compared_with: Mapping[str, Artifact] | None = None,
    build: Callable[[Path, Tracker], Figures],
) -> Artifact:
    """Return the artifact with this key from the store, or build and publish it.

    `build(directory, tracker)` writes the files and returns the figures; it runs in a W&B run. `version` is the stage's
    version, which a developer raises when the stage's result changes for the same inputs. `fields` are all values that
    the stage reads besides its inputs. `inputs` are the artifacts that the result is made from, `started_from` those
    whose weights a training starts from, and `compared_with` those that a decision compares with. With `job.force` the
    artifact is always built.
    """
    groups: dict[Role, Mapping[str, Artifact]] = {
        "made_from": inputs,
        "started_from": started_from or {},
        "compared_with": compared_with or {},
    }
    known = {name: (item, role) for role, group in groups.items() for name, item in group.items()}
    artifacts = {name: item for name, (item, _) in known.items()}
    key = make_key(kind, version, fields, {name: item.key for name, item in artifacts.items()})
    found = None if job.force else job.store.find(kind, job.recipe.name, key, artifacts)
    if found is not None:
        log.info("%s %s: reused %s", job.recipe.name, kind, found.ref)
        return found
    log.info("%s %s: started", job.recipe.name, kind)
    with job.store.draft() as draft, tracked(job, STAGE_OF.get(kind, kind), fields, artifacts) as tracker:
        figures = build(draft, tracker)
        document = figures.document()
        tracker.summary(document)
        tracker.attempt(lambda _: show(tracker, kind, figures, draft))
        artifact = job.store.publish(
            draft,
            kind,
            job.recipe.name,
            key,
            run=job.run,
            inputs={name: Input(ref=item.ref, key=item.key, role=role) for name, (item, role) in known.items()},
            fields=dict(fields),
            figures=document,
        )
        tracker.makes(artifact)
    log.info("%s %s: made %s", job.recipe.name, kind, artifact.ref)
    return artifact
