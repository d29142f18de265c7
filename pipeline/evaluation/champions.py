"""Load the champion and the best earlier release, and predict the current gate rows with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import UNREADABLE, rank_served, unread_note

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.tasks.trained import Trained

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rival:
    """The champion: a release, and the trained model that it was exported from."""

    release: Artifact
    model: Trained

    def answer(self, rows: pd.DataFrame) -> Numbers:
        """Return probabilities (n, labels) or scores (n,) for `rows`. Raises ArtifactError if the model is broken."""
        with _readable(self.release):
            return self.model.answer(rows)

    def answers(self, recipe: Recipe, rows: pd.DataFrame) -> Numbers:
        """Return label numbers (n,) in the current order of `recipe`, or scores (n,). Raises as `answer`."""
        with _readable(self.release):
            return _counted(recipe, self.model, rows)


@dataclass(frozen=True)
class Best:
    """The best release before the champion, if any, and notes on releases that could not be read.

    `answers` are the predictions of the release for the current gate rows, in the form of `Rival.answers`.
    """

    release: Artifact | None = None
    answers: Numbers | None = None
    notes: tuple[str, ...] = ()


def load_rival(recipe: Recipe, release: Artifact) -> Rival:
    """Load the champion. Raises ArtifactError if it cannot be read: a missing champion must not let a gate pass."""
    with _readable(release):
        return Rival(release, _load(recipe, release))


def _load(recipe: Recipe, release: Artifact) -> Trained:
    # Imported here: often there is no model to compare with, and importing torch takes seconds.
    import torch

    from pipeline.tasks.trained import load_trained

    # Leave the GPU to a training that may be running.
    return load_trained(recipe, release.input("trained"), torch.device("cpu"))


def _counted(recipe: Recipe, model: Trained, rows: pd.DataFrame) -> Numbers:
    from pipeline.tasks.registry import task_of

    return task_of(recipe).predictions(model.answer(rows), model.recipe.labels)


def validation_of(champion: Artifact) -> Artifact:
    """Return the validated artifact that a release was trained on. Raises ArtifactError if it cannot be read."""
    with _readable(champion):
        return champion.input("trained").input("tokenized").input("validated")


def find_best(recipe: Recipe, store: Store, known: set[str], rows: pd.DataFrame) -> Best:
    """Return the earlier release with the highest gate metric in its own run, with its predictions for `rows`.

    Comparing with the champion alone would let every run lose slightly less than the margin. Releases trained on the
    sample count only for a recipe on the sample, and those on real data only for real data. Releases built from a
    trained artifact in `known` (refs) are skipped, because the caller compares with these anyway. A release that is
    unreadable, or that answers NaN, is named in `notes` and the next best is used. Raises StoreError if the store is
    unreachable.
    """
    notes: list[str] = []
    for release in rank_served(store, recipe.name, recipe.metrics[0], sample=recipe.sample, notes=notes):
        if release.input_ref("trained") in known:
            continue
        try:
            answers = _counted(recipe, _load(recipe, release), rows)
        except UNREADABLE as error:
            notes.append(unread_note(release.ref, error))
        else:
            return Best(release, answers, tuple(notes))
    return Best(notes=tuple(notes))


@contextmanager
def _readable(champion: Artifact) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise ArtifactError(
            f"the champion {champion.ref} cannot be read ({error}); roll back to a readable deployment "
            "(saebyeok rollback), or restore the store"
        ) from error
