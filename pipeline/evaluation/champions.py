"""Champions: the model that is served and the best one before it, asked what they make of tonight's gate rows."""

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

    from pipeline.models.trained import Trained

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rival:
    """The champion: a release, and the trained model that it was exported from."""

    release: Artifact
    model: Trained

    def answer(self, rows: pd.DataFrame) -> Numbers:
        """Its answers to `rows`: probabilities (n, labels) or scores (n,). Raises ArtifactError where it is broken."""
        with _readable(self.release):
            return self.model.answer(rows)

    def answers(self, recipe: Recipe, rows: pd.DataFrame) -> Numbers:
        """Its answers to `rows` as `recipe` counts them now: label numbers (n,), or scores (n,). Raises as `answer`."""
        with _readable(self.release):
            return _counted(recipe, self.model, rows)


@dataclass(frozen=True)
class Best:
    """The best release before the champion, if any, and what is to be said of those that could not be read.

    `answers` are the release's answers to tonight's gate rows, as `Rival.answers` has them.
    """

    release: Artifact | None = None
    answers: Numbers | None = None
    notes: tuple[str, ...] = ()


def load_rival(recipe: Recipe, release: Artifact) -> Rival:
    """The champion. Raises ArtifactError where it cannot be read: a gate must not pass for want of one."""
    with _readable(release):
        return Rival(release, _load(recipe, release))


def _load(recipe: Recipe, release: Artifact) -> Trained:
    # Here and not at the top: mostly there is nobody to compare with, and torch takes seconds.
    import torch

    from pipeline.models.trained import load_trained

    # A GPU, where there is one, belongs to the training that may be going on.
    return load_trained(recipe, release.input("trained"), torch.device("cpu"))


def _counted(recipe: Recipe, model: Trained, rows: pd.DataFrame) -> Numbers:
    answers = model.answer(rows)
    if answers.ndim == 1:
        return answers
    # By name, since the recipe may have got other labels meanwhile; one that it lost is never right.
    numbers = {name: number for number, name in enumerate(recipe.labels)}
    by_name = np.array([numbers.get(name, -1) for name in model.recipe.labels])
    return np.asarray(by_name[answers.argmax(axis=1)])


def validation_of(champion: Artifact) -> Artifact:
    """The validation of what a release was trained on. Raises ArtifactError where that cannot be read."""
    with _readable(champion):
        return champion.input("trained").input("tokenized").input("validated")


def find_best(recipe: Recipe, store: Store, known: set[str], rows: pd.DataFrame) -> Best:
    """The release served before the champion whose gate figure was the highest on its own night, asked about `rows`.

    Where the champion alone were the measure, each night might lose a little less than the margin. Releases of the
    sample do not count where the recipe is of real data, nor the other way round; those made from a trained
    artifact of `known` (refs) are compared anyway. One that cannot be read any more, or answers with what is no
    number, is named in `notes`, and the next best takes its place. Raises StoreError where the store is away.
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
            f"the champion {champion.ref} cannot be read ({error}); roll back to a deployment that can "
            "(saebyeok rollback), or restore the store"
        ) from error
