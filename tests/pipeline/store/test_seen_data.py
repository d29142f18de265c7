"""The data that a model has seen: recorded with its training, or found from the inputs of an older one."""

from __future__ import annotations

from datetime import date

import pytest

from pipeline.errors import ArtifactError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.figures import SeenData, ValidationFigures
from pipeline.store.seen_data import seen_by, seen_in_training
from tests.support.families import made, training

EARLY, LATE = date(2026, 3, 1), date(2026, 3, 9)


def tokens(store: Store, share: float | None, newest: date | None = None) -> Artifact:
    figures = ValidationFigures(train_rows=9, test_rows=9, sample=True, cutoff=newest)
    fields = {} if share is None else {"gate_share": share}
    return made(store, "tokenize", fields=fields, validated=made(store, "validate", figures))


def trained(store: Store, share: float, newest: date | None = None, **start: Artifact) -> Artifact:
    return made(store, "train", training(), tokenized=tokens(store, share, newest), **start)


def test_training_has_seen_all_but_its_gate_share(store: Store) -> None:
    assert seen_by(trained(store, 0.1, EARLY)) == SeenData(held_out=0.1, newest=EARLY)
    assert seen_by(trained(store, 0.1)) == SeenData(held_out=0.1, newest=None)


@pytest.mark.parametrize(
    ("first", "second", "held_out", "newest"),
    [
        ((0.02, LATE), (0.1, EARLY), 0.02, LATE),
        ((0.1, EARLY), (0.02, LATE), 0.02, LATE),
        ((0.1, None), (0.1, EARLY), 0.1, EARLY),
        ((0.1, LATE), (0.2, None), 0.1, LATE),
    ],
)
def test_training_has_seen_what_its_start_has_seen(
    store: Store, first: tuple[float, date | None], second: tuple[float, date | None], held_out: float, newest: date
) -> None:
    start = trained(store, *first)
    then = trained(store, *second, start=start)
    expected = SeenData(held_out=held_out, newest=newest)
    assert seen_by(then) == expected
    # As recorded by a new training, and over several generations.
    assert seen_in_training(tokens(store, *second), seen_by(start)) == expected
    assert seen_by(trained(store, 0.5, start=then)) == expected


def test_recorded_data_need_no_input(store: Store) -> None:
    seen = SeenData(held_out=0.05, newest=EARLY)
    assert seen_by(made(store, "train", training(seen))) == seen


def test_pruned_start_of_an_old_training_has_seen_every_row(store: Store) -> None:
    start = trained(store, 0.1, EARLY)
    then = trained(store, 0.1, LATE, start=start)
    store.prune(start)
    assert seen_by(then) == SeenData(held_out=0.0, newest=LATE)


def test_unknown_gate_share_is_an_error(store: Store) -> None:
    with pytest.raises(ArtifactError, match="its manifest has no gate_share, so its gate rows are unknown"):
        seen_in_training(tokens(store, None), None)
