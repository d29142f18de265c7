"""The train stage: fine-tune the recipe's model and keep the epoch with the best validation metric."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipeline.atomic_files import create_file
from pipeline.errors import StoreError, TerminatedError, TrainingDivergedError
from pipeline.job import Job
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.stages.find_or_build import find_or_build
from pipeline.stages.leftover_work import delete_leftover_work
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import TokenizationFigures, TrainingFigures
from pipeline.store.leases import wait_for
from pipeline.store.manifest import make_key
from pipeline.store.seen_data import seen_by, seen_in_training
from pipeline.training.shared_checkpoints import SHARED, TAKEN_OVER, Shared, forget

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

log = logging.getLogger(__name__)

VERSION = 5


def train(job: Job, tokenized: Artifact, champion: Artifact | None = None) -> Artifact:
    """Fine-tune on the training split and return the model; `model/` has weights, configuration and tokenizer.

    If the recipe's `train.start` is champion, training starts from the model of the release `champion`, which becomes
    the input `start`. If the champion has another base model or kind, or has seen data of the run's date or later (a
    backfilled run), training starts from the base model, with a warning. A champion that was trained on the same tokens
    with the same settings is returned as it is.

    Several GPUs share every batch that is large enough (`pipeline.models.hardware`).

    An interrupted run resumes from its newest complete checkpoint. If the store is outside HOME, checkpoints are copied
    there, another host resumes from them, and a lease lets only one host at a time train the same model.

    Figures: `seconds`, `samples_per_second`, `padding` (share of the computed tokens), `parts` (number of parts of a
    batch, if memory was short), `best_epoch`, `validation`, `history`, `parameters`, `device`, `precision`; for a
    bi-encoder `calibration` and `euclidean`, the lines from cosines and distances to scores; on CUDA `gpu_memory_gib`,
    the peak.
    Raises TrainingDivergedError at a NaN or infinite loss, TerminatedError at SIGTERM or if another host has taken over
    the lease, ProcessError if one of several processes dies.
    """
    recipe = job.recipe
    fields = _fields(recipe)
    start = _start(job, champion, fields, tokenized) if champion and recipe.train.start == "champion" else None
    if start and not job.force and start.manifest.fields == fields and start.input_ref("tokenized") == tokenized.ref:
        return start
    started_from = {"start": start} if start else {}
    inputs = {"tokenized": tokenized} | started_from
    seen = seen_in_training(tokenized, seen_by(start) if start else None)
    keys = {name: artifact.key for name, artifact in inputs.items()}
    work = job.settings.home / "work" / f"{recipe.name}-{make_key('train', VERSION, fields, keys)}"

    made_from = {"tokenized": tokenized}
    delete_leftover_work(job)
    with alone(work):
        if job.force:
            shutil.rmtree(work, ignore_errors=True)
        with _leased(job, work) as check_lease:

            def build(draft: Path, tracker: Tracker) -> TrainingFigures:
                # Imported here so that a finished training is reused without torch.
                from pipeline.training.fine_tune import fit_here

                figures = fit_here(job, inputs, draft, work, tracker)
                check_lease()
                return figures.model_copy(update={"seen": seen})

            try:
                artifact = find_or_build(
                    job, "train", VERSION, fields=fields, inputs=made_from, started_from=started_from, build=build
                )
            except TrainingDivergedError:
                # A training resumed from these checkpoints would diverge again.
                shutil.rmtree(work, ignore_errors=True)
                raise
        # Only a retry needs the checkpoints.
        shutil.rmtree(work, ignore_errors=True)
    return artifact


@contextmanager
def _leased(job: Job, work: Path) -> Iterator[Callable[[], None]]:
    """Hold the lease of the training in `work`, and yield a function that raises TerminatedError once it is lost.

    During the block, checkpoints go to the store. A store below HOME needs none of this: it has no other host.
    """
    if job.store.is_below(job.settings.home):
        yield lambda: None
        return
    recipe, key = job.recipe.name, work.name.rpartition("-")[2]
    lease = wait_for(job.store, f"train/{recipe}/{key}", _home_id(job.settings.home), time.sleep)
    cache = str(job.settings.home / "cache" / "store")
    shared = Shared(job.store.uri, cache, recipe, key, lease.attempt, job.run, job.settings.checkpoint_seconds)
    if job.force:
        forget(shared)
    shared.write(work)

    def check() -> None:
        if not lease.is_mine():
            raise TerminatedError(TAKEN_OVER)

    try:
        with lease.kept(lost=lambda: (work / SHARED).unlink(missing_ok=True)):
            yield check
    except BaseException as error:
        with suppress(StoreError):
            if isinstance(error, TrainingDivergedError):
                forget(shared)
            # A later holder may have finished and deleted its records: a beat of this one would start them again.
            if lease.is_mine():
                lease.release()
        raise
    finally:
        (work / SHARED).unlink(missing_ok=True)
    forget(shared)
    lease.finish()


def _home_id(home: Path) -> str:
    """Return the id of this home directory; a new one is written there first."""
    home.mkdir(parents=True, exist_ok=True)
    create_file(home / "home.id", secrets.token_hex(8))
    return (home / "home.id").read_text(encoding="utf-8")


def _fields(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that decide the trained weights."""
    return {
        "kind": recipe.kind,
        "labels": list(recipe.labels),
        "objective": recipe.model.objective,
        "max_length": recipe.model.max_length,
        "pooling": recipe.model.pooling,
        "scratch": recipe.model.scratch.model_dump() if recipe.model.base == SCRATCH and recipe.model.scratch else None,
        "train": recipe.train.model_dump(),
        "calibrated_to": list(recipe.score_range) if recipe.score_range else None,
        "similar_at": recipe.similar_at,
    }


def _start(job: Job, champion: Artifact, fields: Mapping[str, Any], tokenized: Artifact) -> Artifact | None:
    """Return the trained artifact of the champion, or None, with a warning, if training cannot start from it."""
    start = champion.input("trained")
    if not _fits(start, fields, tokenized):
        log.warning("the champion has another base model or kind: training starts from the base model")
        return None
    seen = seen_by(start)
    if seen.newest is not None and seen.newest >= job.cutoff:
        reason = f"has seen data of {seen.newest}, and the date of this run is {job.cutoff}"
    elif not seen.held_out:
        # The new model could not be compared with any other one.
        reason = "may have been trained on every row, because what it started from was deleted"
    else:
        return start
    log.warning("the champion %s: training starts from the base model", reason)
    return None


def _fits(start: Artifact, fields: Mapping[str, Any], tokenized: Artifact) -> bool:
    """Return whether a trained model has the base model of `tokenized` and weights of the required shape."""
    same = all(start.manifest.fields.get(name) == fields[name] for name in ("kind", "labels", "objective", "pooling"))
    return same and TrainingFigures.read(start).base == TokenizationFigures.read(tokenized).base


@contextmanager
def alone(work: Path, doing: str = "trains") -> Iterator[None]:
    """Hold the lock on the directory `work`, and wait for another process that has it.

    The other process writes the same checkpoints, and its result is reused. `doing` is its activity, for the log.
    """
    work.parent.mkdir(parents=True, exist_ok=True)
    path = work.with_name(f"{work.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.warning("another run %s the same: waiting for it", doing)
        lock.acquire()
    try:
        yield
        # Delete while holding the lock: a waiting process notices that the name is gone, and locks a new file.
        path.unlink(missing_ok=True)
    finally:
        lock.release()
