"""Find the best release before the champion on the current gate rows, and the rows on which all models are compared."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ArtifactError, PrunedError
from pipeline.evaluation.answer_cache import AnswerCache
from pipeline.evaluation.champions import other_task, predictions_of, readable
from pipeline.evaluation.rivals import Rivals, fewest_rows, first_metric, gate_rows
from pipeline.job import Job
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import Check
from pipeline.store.decisions import Score, read_decision
from pipeline.store.deployments import UNREADABLE, DeploymentLog
from pipeline.store.figures import ValidationFigures
from pipeline.store.seen_data import seen_by
from pipeline.store.verdicts import find_waiver

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Candidate:
    """An earlier release, the share of places that it held out, and its predictions for the gate rows."""

    release: Artifact
    held_out: float
    answers: Numbers


def find_rivals(job: Job, evaluated: Artifact, champion: Artifact) -> Rivals:
    """Let the releases before the champion answer the current gate rows, and return them with the rows that count.

    If models were compared with the champion alone, each could be worse than the one before by slightly less than the
    margin. The figures of the releases' own runs are of other rows and say nothing here. Candidates are all releases
    that led to the champion and that retention keeps, except the models of `evaluated` and `champion`. Those trained on
    the sample count only for a recipe on the sample, and those on real data only for real data. One that is unreadable
    or answers NaN is named in `notes`. One that cannot be compared, because it shares too few rows or knows other
    labels, makes the comparison fail until a person approves a model; then it is named in `notes`, too. Raises
    ArtifactError if the champion cannot be read, StoreError if the store is unreachable.
    """
    with readable(champion):
        theirs = seen_by(champion.input("trained")).held_out
    gate, share = gate_rows(evaluated), min(theirs, seen_by(evaluated.input("trained")).held_out)
    search = _Search(job, gate, theirs, champion)
    known = {ref for item in (evaluated, champion) if (ref := item.input_ref("trained"))}
    candidates = list(search.candidates(known))
    share = min([share, *(item.held_out for item in candidates)])
    counted = search.places < share
    labels = gate["label"].to_numpy()[counted]
    scored = [(first_metric(job.recipe, labels, item.answers[counted]), item) for item in candidates]
    ranked = [pair for pair in scored if not math.isnan(pair[0])]
    best = max(ranked, key=itemgetter(0))[1] if ranked else None
    return Rivals(
        gate=gate,
        counted=counted,
        scores=tuple(
            Score(model="earlier", ref=item.release.ref, value=value, held_out=item.held_out) for value, item in scored
        ),
        best=best.release if best else None,
        answers=best.answers[counted] if best else None,
        bar=search.bar,
        notes=tuple(search.notes),
    )


class _Search:
    """The search for candidates among the releases that led to the champion."""

    def __init__(self, job: Job, gate: pd.DataFrame, champions: float, champion: Artifact) -> None:
        self._job = job
        self._gate = gate
        self._champions = champions
        self._champion = champion
        self._cache = AnswerCache.of(job)
        # Imported here: without a champion there is no comparison, and importing SciPy's statistics takes a second.
        from pipeline.data.splits import gate_places

        self.places = gate_places(job.recipe, gate)
        self.bar: Check | None = None
        self.notes: list[str] = []

    def candidates(self, known: set[str]) -> Iterator[_Candidate]:
        """Yield the candidates whose trained artifact is not in `known` (refs), oldest first."""
        path = self._path()
        used = [self._champion.input("trained")]
        for place, ref in enumerate(path[:-1]):
            try:
                release = self._job.store.open(ref)
                trained = release.input("trained")
                if trained.ref in known or not self._is_of_this_data(trained):
                    continue
                candidate = self._candidate(release, trained, path[place:-1])
            except PrunedError:
                # Retention has kept better ones (`pipeline.deployment.retention`).
                continue
            except UNREADABLE as error:
                self._note(ref, f"cannot be read ({error})")
                continue
            if candidate is not None:
                used.append(trained)
                yield candidate
        self._cache.forget_others(used)

    def _path(self) -> list[str]:
        recipe = self._job.recipe.name
        try:
            return DeploymentLog(self._job.store).served(recipe)
        except ArtifactError as error:
            self.notes.append(
                f"the deployment log cannot be read ({error}); the model was not compared with earlier releases"
            )
            return []

    def _is_of_this_data(self, trained: Artifact) -> bool:
        validated = trained.input("tokenized").input("validated")
        return ValidationFigures.read(validated).sample == self._job.recipe.sample

    def _candidate(self, release: Artifact, trained: Artifact, path: Sequence[str]) -> _Candidate | None:
        """Return the candidate, or None if it is left out; `path` has it and the champions after it."""
        recipe, share = self._job.recipe, seen_by(trained).held_out
        bar = other_task(recipe, release, "best")
        shared = int((self.places < min(share, self._champions)).sum())
        if (bar or shared < fewest_rows(recipe)) and _accepted_over(self._job.store, recipe.name, path):
            self._note(release.ref, "cannot be compared, and a person has approved a later model in spite of that")
            return None
        if bar:
            self.bar = bar
            return None
        return _Candidate(release, share, predictions_of(recipe, release, self._gate, self._cache))

    def _note(self, ref: str, why: str) -> None:
        self.notes.append(f"the earlier release {ref} {why}; the model was not compared with it")


def _accepted_over(store: Store, recipe: str, champions: Collection[str]) -> bool:
    """Return whether a person approved a model that could not be compared with one of `champions`, then live."""
    for ref in store.refs("decide", recipe):
        try:
            decided = store.open(ref)
            if decided.input_ref("champion") in champions and find_waiver(decided, read_decision(decided)):
                return True
        except ArtifactError:
            continue  # unreadable, or its model was pruned
    return False
