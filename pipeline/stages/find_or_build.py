"""The common part of all stages: find the artifact by its key, or build it in a tracked run and publish it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.job import Job
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import Figures
from pipeline.store.manifest import make_key
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
    build: Callable[[Path, Tracker], Figures],
) -> Artifact:
    """Return the artifact with this key from the store, or build and publish it.

    `build(directory, tracker)` writes the files and returns the figures; it runs in a W&B run. `version` is the stage's
    version, which a developer raises when the stage's result changes for the same inputs. `fields` are all values that
    the stage reads besides its inputs. With `job.force` the artifact is always built.
    """
    key = make_key(kind, version, fields, {name: artifact.key for name, artifact in inputs.items()})
    found = None if job.force else job.store.find(kind, job.recipe.name, key, inputs)
    if found is not None:
        log.info("%s %s: reused %s", job.recipe.name, kind, found.ref)
        return found
    log.info("%s %s: started", job.recipe.name, kind)
    with job.store.draft() as draft, tracked(job, STAGE_OF.get(kind, kind), fields, inputs) as tracker:
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
            inputs={name: {"ref": item.ref, "key": item.key} for name, item in inputs.items()},
            fields=dict(fields),
            figures=document,
        )
        tracker.makes(artifact)
    log.info("%s %s: made %s", job.recipe.name, kind, artifact.ref)
    return artifact
