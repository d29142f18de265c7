"""Models that answer from memory: artifacts of whole nights, made in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.splits import place_of
from pipeline.evaluation import champions
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.figures import SeenData, ValidationFigures
from tests.support.families import made, texts_between, training
from tests.support.made_figures import evaluation

#: Gate rows that may arrive, in the order in which they do; each has the label number of its place in the list.
TEXTS = texts_between(0.0, 1.0, 130)
TRUTH = {text: number % 2 for number, text in enumerate(TEXTS)}
#: Rows of the first day, and of each further day.
FIRST, FURTHER = 90, 4
START = date(2015, 8, 1)
LABELS = (("negative", "positive"), ("bad", "good"))


@dataclass(frozen=True)
class MadeModel:
    """A model and what is true about it: the texts that it answers wrong, its labels, and the rows that it held out."""

    wrong: frozenset[str]
    names: int
    share: float
    evaluated: Artifact

    @property
    def content(self) -> tuple[frozenset[str], int]:
        """What makes it the same model as another one."""
        return self.wrong, self.names

    @property
    def trained(self) -> Artifact:
        return self.evaluated.input("trained")

    @property
    def day(self) -> int:
        """The day whose data it knows."""
        cutoff = ValidationFigures.read(self.evaluated.input("validated")).cutoff
        assert cutoff is not None
        return (cutoff - START).days


@dataclass(frozen=True)
class Remembering:
    """A model that knows its answers by heart."""

    known: Any

    def answer(self, rows: pd.DataFrame) -> Any:
        return np.eye(2)[self.known[rows["text"]].to_numpy()]


def remembered(_: Recipe, release: Artifact) -> Remembering:
    """Return the model of a release: it answers as its trained artifact says."""
    table = pd.read_parquet(release.input("trained").path / "answers.parquet")
    return Remembering(table.set_index("text")["answer"])


def answer_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trained models answer from memory, and build no Bento."""
    monkeypatch.setattr(champions, "load_model", remembered)
    monkeypatch.setattr("pipeline.deployment.deployer.ensure_bento", lambda *_: "")


def gate_rows_of(day: int, share: float) -> list[str]:
    """Return the gate rows of a day that a training with this gate share held out."""
    return [text for text in TEXTS[: FIRST + FURTHER * day] if place_of((text,)) < share]


def validated_on(store: Store, day: int) -> Artifact:
    """Publish the data of a day."""
    cutoff = START + timedelta(days=day)
    return made(store, "validate", ValidationFigures(train_rows=4000, test_rows=1000, sample=False, cutoff=cutoff))


def make_model(
    validated: Artifact, wrong: frozenset[str], names: int, day: int, share: float, *, good: bool
) -> MadeModel:
    """Publish the artifacts of a night up to its evaluation; only a `good` model reaches its thresholds."""
    store = validated.store
    tokenized = made(store, "tokenize", fields={"gate_share": share}, validated=validated)
    answers = {text: truth ^ (text in wrong) for text, truth in TRUTH.items()}
    trained = made(
        store,
        "train",
        training(SeenData(held_out=share, newest=START + timedelta(days=day))),
        fields={"kind": "classification", "objective": None, "labels": list(LABELS[names])},
        tables={"answers": pd.DataFrame({"text": list(answers), "answer": list(answers.values()), "names": names})},
        tokenized=tokenized,
    )
    rows = gate_rows_of(day, share)
    labels, predictions = ([known[text] for text in rows] for known in (TRUTH, answers))
    evaluated = made(
        store,
        "evaluate",
        evaluation({"accuracy": 0.9 if good else 0.5, "f1": 0.9}, sample=False),
        tables={"gate": pd.DataFrame({"text": rows, "label": labels, "prediction": predictions})},
        files=dict.fromkeys(("mistakes.json", "behaviour.json"), b"[]"),
        validated=validated,
        tokenized=tokenized,
        trained=trained,
    )
    return MadeModel(wrong, names, share, evaluated)


def recipe_with(recipe: Recipe, *, margin: float, names: int, mapped: bool) -> Recipe:
    """Return the recipe with another margin and these label names; `mapped` says that labels were only renamed."""
    gate = recipe.gate.model_copy(update={"margin": margin, "behaviour": {}})
    renamed = dict(zip(LABELS[1 - names], LABELS[names], strict=True)) if mapped else {}
    return recipe.model_copy(update={"gate": gate, "labels": LABELS[names], "renamed_labels": renamed})
