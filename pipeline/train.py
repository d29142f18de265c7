"""Train: fine-tune the recipe's model, keep the epoch that is best on the validation side."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipeline.artifacts import Artifact
from pipeline.job import Job
from pipeline.manifest import make_key
from pipeline.produce import produce
from pipeline.recipe import SCRATCH

if TYPE_CHECKING:
    from pipeline.tracker import Tracker

log = logging.getLogger(__name__)

VERSION = 2


def train(job: Job, tokenized: Artifact) -> Artifact:
    """Fine-tune on the training side; `model/` holds weights, configuration and tokenizer.

    A run that was cut off goes on from its newest complete checkpoint. Figures: `seconds`, `samples_per_second`,
    `padding` (share of what was computed), `parts` (in which a batch is computed, where memory was short),
    `best_epoch`, `validation`, `history`, `parameters`, `device`, `precision`, `calibration`.
    Raises TrainingDivergedError where the loss is no longer a number, TerminatedError at SIGTERM.
    """
    recipe = job.recipe
    fields = {
        "kind": recipe.kind,
        "labels": recipe.labels,
        "objective": recipe.model.objective,
        "max_length": recipe.model.max_length,
        "scratch": recipe.model.scratch.model_dump() if recipe.model.base == SCRATCH and recipe.model.scratch else None,
        "train": recipe.train.model_dump(),
        "calibrated_to": recipe.score_range,
        "similar_at": recipe.similar_at,
    }
    work = job.settings.home / "work" / f"{recipe.name}-{make_key('train', VERSION, fields, {'': tokenized.key})}"

    def build(draft: Path, tracker: Tracker) -> dict[str, Any]:
        # Here and not at the top: a finished training is found again without torch.
        from pipeline.fit import fit

        return fit(job, tokenized, draft, work, tracker)

    with alone(work):
        if job.force:
            shutil.rmtree(work, ignore_errors=True)
        artifact = produce(job, "train", VERSION, fields=fields, inputs={"tokenized": tokenized}, build=build)
        # Checkpoints are for a retry only.
        shutil.rmtree(work, ignore_errors=True)
    return artifact


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Wait for another process that trains the same: its checkpoints are the same files, its result is ours too."""
    work.parent.mkdir(parents=True, exist_ok=True)
    path = work.with_name(f"{work.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.warning("another run trains the same: waiting for it")
        lock.acquire()
    try:
        yield
        # While it is held: whoever waits sees that the name is gone, and locks a new file.
        path.unlink(missing_ok=True)
    finally:
        lock.release()
