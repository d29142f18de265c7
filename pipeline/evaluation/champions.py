"""The champion: load it, let it answer rows, and tell whether its answers can be compared with a new model's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.evaluation.answer_cache import AnswerCache
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.checks import RivalName, TaskCheck
from pipeline.store.deployments import UNREADABLE

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
        with readable(self.release):
            return self.model.answer(rows)


def load_rival(recipe: Recipe, release: Artifact) -> Rival:
    """Load the champion. Raises ArtifactError if it cannot be read: a missing champion must not let a gate pass."""
    with readable(release):
        return Rival(release, load_model(recipe, release))


def load_model(recipe: Recipe, release: Artifact) -> Trained:
    """Load the trained model of a release on the CPU. Raises one of `UNREADABLE` if it is damaged or lost."""
    # Imported here: often there is no model to compare with, and importing torch takes seconds.
    import torch

    from pipeline.tasks.trained import load_trained

    # Leave the GPU to a training that may be running.
    return load_trained(recipe, release.input("trained"), torch.device("cpu"))


def predictions_of(recipe: Recipe, release: Artifact, rows: pd.DataFrame, cache: AnswerCache) -> Numbers:
    """Return the predictions of a release for `rows`: label numbers (n,) in the order of `recipe`, or scores (n,).

    Raises one of `UNREADABLE` if a prediction is not in `cache` and the model cannot be run.
    """
    from pipeline.tasks.registry import task_of

    trained = release.input("trained")
    answers = cache.answers(trained, rows, lambda new: load_model(recipe, release).answer(new))
    return task_of(recipe).predictions(answers, trained.manifest.fields["labels"])


def validation_of(champion: Artifact) -> Artifact:
    """Return the validated artifact that a release was trained on. Raises ArtifactError if it cannot be read."""
    with readable(champion):
        return champion.input("trained").input("tokenized").input("validated")


def other_task(recipe: Recipe, release: Artifact, rival: RivalName) -> TaskCheck | None:
    """Return a failed check, which a person may waive, if a release solves another task or knows other labels.

    All its answers would count as wrong, and any model would win. A damaged release has no fields; loading it fails.
    """
    fields = release.input("trained").manifest.fields
    if "kind" not in fields:
        return None
    theirs, ours = _tasks(recipe, fields)
    labels = set(recipe.names_now(fields.get("labels", ())))
    if theirs != ours:
        known, wanted = theirs, ours
    elif labels != set(recipe.labels):
        known, wanted = (", ".join(sorted(names)) for names in (labels, set(recipe.labels)))
    else:
        return None
    return TaskCheck(value=0.0, bound=1.0, passed=False, task=wanted, champions=known, rival=rival)


def is_other_kind(recipe: Recipe, release: Artifact) -> bool:
    """Return whether a release solves another kind of task, so that it cannot answer the recipe's rows."""
    fields = release.input("trained").manifest.fields
    return "kind" in fields and len(set(_tasks(recipe, fields))) > 1


def _tasks(recipe: Recipe, fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return the tasks of a trained artifact (`fields`) and of `recipe` in words, such as "regression of pairs"."""
    theirs = _task(fields["kind"], pair=fields.get("objective") is not None)
    return theirs, _task(recipe.kind, pair=recipe.inputs == "pair")


def _task(kind: str, *, pair: bool) -> str:
    return f"{kind} of {'pairs' if pair else 'texts'}"


@contextmanager
def readable(champion: Artifact) -> Iterator[None]:
    """Convert errors of reading the champion into an ArtifactError that says how to continue."""
    try:
        yield
    except UNREADABLE as error:
        raise ArtifactError(
            f"the champion {champion.ref} cannot be read ({error}); roll back to a readable deployment "
            "(saebyeok rollback), or restore the store"
        ) from error
