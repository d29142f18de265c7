"""The models that a new one is compared with, and when it is not: on artifacts made by hand, without real models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ArtifactError, BaseModelError, BrokenModelError, RefusedError, StoreError
from pipeline.evaluation import champions
from pipeline.evaluation.champions import Best, Rival, find_best, load_rival, validation_of
from pipeline.evaluation.promotion_gate import bar_challenger, compare_with_rivals, gate_rows, is_same_model
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import Check, check_document
from tests.support.families import Parrot, family, made, serve
from tests.support.verdicts import with_margin, won_and_lost

REVIEWS = load_recipe("nsmc", "embedded")
SAMPLE = load_recipe("nsmc", "embedded", sample=True)
PAIRS = load_recipe("klue-sts", "embedded")
Load = Callable[..., list[str]]
ROWS = pd.DataFrame({"text": ["a", "b", "c", "d"]})


def sure(*numbers: int) -> Any:
    """Return outputs (n, 2) whose highest are `numbers`."""
    return np.eye(2)[list(numbers)]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load((release, outputs), ...)`: these models are loaded from now on; the refs of those loaded are returned."""

    def load(*models: tuple[Artifact, Any]) -> list[str]:
        outputs = {release.ref: answers for release, answers in models}
        loaded: list[str] = []

        def parrot(recipe: Recipe, release: Artifact) -> Parrot:
            loaded.append(release.ref)
            return Parrot(recipe, outputs[release.ref])

        monkeypatch.setattr(champions, "_load", parrot)
        return loaded

    return load


# --- the champion ---


def test_rival_returns_the_outputs_of_its_model(store: Store) -> None:
    outputs = sure(0, 1, 1, 0)
    rival = Rival(family(store).release, Parrot(REVIEWS, outputs))
    assert rival.answer(ROWS) is outputs
    scores = np.array([0.5, 4.5, 2.0, 1.0])
    assert Rival(rival.release, Parrot(PAIRS, scores)).answers(PAIRS, ROWS) is scores


def test_rival_and_best_are_immutable(store: Store) -> None:
    for item, name in ((Rival(family(store).release, Parrot(REVIEWS, sure(0))), "model"), (Best(), "answers")):
        with pytest.raises(FrozenInstanceError):
            setattr(item, name, None)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("negative", "positive"), [0, 1, 1, 0]),
        (("positive", "negative"), [1, 0, 0, 1]),
        (("negative", "neutral"), [0, -1, -1, 0]),
        (("bad", "good"), [-1, -1, -1, -1]),
    ],
)
def test_rival_answers_with_todays_label_numbers(store: Store, labels: tuple[str, str], expected: list[int]) -> None:
    theirs = REVIEWS.model_copy(update={"labels": labels})
    # Not a permutation of the identity: of each row, the highest counts.
    outputs = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.6, 0.4]])
    answers = Rival(family(store).release, Parrot(theirs, outputs)).answers(REVIEWS, ROWS)
    assert answers.tolist() == expected


@pytest.mark.parametrize(
    "error",
    [
        ArtifactError("lost"),
        BaseModelError("lost"),
        BrokenModelError("lost"),
        KeyError("lost"),
        OSError("lost"),
        RuntimeError("lost"),
        TypeError("lost"),
        ValueError("lost"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_rival_that_cannot_answer_is_an_unreadable_champion(store: Store, error: Exception) -> None:
    rival = Rival(family(store).release, Parrot(REVIEWS, error))
    for ask in (lambda: rival.answer(ROWS), lambda: rival.answers(REVIEWS, ROWS)):
        with pytest.raises(ArtifactError) as caught:
            ask()
        assert str(caught.value) == (
            f"the champion {rival.release.ref} cannot be read ({error}); roll back to a readable deployment "
            "(saebyeok rollback), or restore the store"
        )
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [StoreError("away"), RefusedError("no")], ids=lambda error: type(error).__name__)
def test_other_errors_of_a_rival_pass(store: Store, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        Rival(family(store).release, Parrot(REVIEWS, error)).answer(ROWS)
    assert caught.value is error


@pytest.mark.torch
def test_champion_is_loaded_on_the_cpu(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    release, asked = family(store), []

    def load_trained(recipe: Recipe, trained: Artifact, device: Any) -> Parrot:
        asked.append((recipe, trained.ref, str(device)))
        return Parrot(recipe, sure(0))

    monkeypatch.setattr("pipeline.tasks.trained.load_trained", load_trained)
    rival = load_rival(REVIEWS, release.release)
    assert (rival.release, rival.model) == (release.release, Parrot(REVIEWS, rival.model.outputs))
    assert asked == [(REVIEWS, release.trained.ref, "cpu")]


def test_champion_that_cannot_be_loaded_stops_the_gate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> None:
        raise FileNotFoundError("no weights")

    monkeypatch.setattr(champions, "_load", lost)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_rival(REVIEWS, family(store).release)


def test_release_has_the_validation_of_its_training(store: Store) -> None:
    release = family(store, cutoff="2026-01-02")
    assert validation_of(release.release).ref == release.validated.ref
    bare = made(store, "release")
    with pytest.raises(ArtifactError, match=rf"the champion {bare.ref} cannot be read .*without an input 'trained'"):
        validation_of(bare)


# --- the best release before the champion ---


def best_of(store: Store, recipe: Recipe = SAMPLE, known: set[str] | None = None) -> Best:
    return find_best(recipe, store, known or set(), ROWS)


def test_best_has_the_highest_first_metric(store: Store, load: Load) -> None:
    low, high, champion = (
        family(store, reached={"accuracy": accuracy, "f1": f1}).release
        for accuracy, f1 in ((0.7, 0.9), (0.9, 0.7), (0.95, 0.95))
    )
    serve(low, high, champion)
    loaded = load((low, sure(0, 0, 0, 0)), (high, sure(1, 0, 1, 0)))
    best = best_of(store)
    assert best.release is not None
    assert best.release.ref == high.ref
    assert best.answers.tolist() == [1, 0, 1, 0]
    assert best.notes == ()
    assert loaded == [high.ref]


@pytest.mark.parametrize(("recipe", "place"), [(SAMPLE, 0), (REVIEWS, 1)])
def test_best_is_of_the_same_data(store: Store, load: Load, recipe: Recipe, place: int) -> None:
    earlier = [family(store, sample=sample, reached={"accuracy": 0.9}).release for sample in (True, False)]
    serve(*earlier, family(store).release)
    loaded = load(*((release, sure(0, 0, 0, 1)) for release in earlier))
    assert best_of(store, recipe).release == earlier[place]
    assert loaded == [earlier[place].ref]


def test_known_models_are_skipped_without_loading(store: Store, load: Load) -> None:
    known, other, champion = (family(store, reached={"accuracy": value}) for value in (0.9, 0.8, 0.7))
    serve(known.release, other.release, champion.release)
    loaded = load((other.release, sure(0, 0, 0, 0)))
    best = best_of(store, known={known.trained.ref, "train/nsmc/another"})
    assert best.release == other.release
    assert loaded == [other.release.ref]


def test_best_that_cannot_answer_leaves_a_note(store: Store, load: Load) -> None:
    broken, next_best, champion = (family(store, reached={"accuracy": value}).release for value in (0.9, 0.8, 0.7))
    serve(broken, next_best, champion)
    loaded = load((broken, BrokenModelError("NaN")), (next_best, sure(0, 0, 0, 0)))
    best = best_of(store)
    assert best.release == next_best
    assert best.notes == (f"the earlier release {broken.ref} cannot be read (NaN); the model was not compared with it",)
    assert loaded == [broken.ref, next_best.ref]


def test_without_a_readable_release_only_notes_remain(store: Store, load: Load) -> None:
    broken = family(store, reached={"accuracy": 0.9}).release
    serve(broken, family(store).release)
    load((broken, ValueError("torn")))
    best = best_of(store)
    assert (best.release, best.answers, len(best.notes)) == (None, None, 1)
    assert "torn" in best.notes[0]


def test_notes_of_the_ranking_are_kept(store: Store, load: Load) -> None:
    without, ranked = family(store).release, family(store, reached={"accuracy": 0.5}).release
    serve(without, ranked, family(store).release)
    load((ranked, sure(0, 0, 0, 0)))
    best = best_of(store)
    assert best.release == ranked
    (note,) = best.notes
    assert note.startswith(f"the earlier release {without.ref} cannot be read (")


def test_unreachable_store_is_no_note(store: Store, load: Load) -> None:
    release = family(store, reached={"accuracy": 0.9}).release
    serve(release, family(store).release)
    load((release, StoreError("away")))
    with pytest.raises(StoreError, match="away"):
        best_of(store)


# --- comparisons ---


def test_same_model_has_the_same_train_artifact(store: Store) -> None:
    champion = family(store)
    assert is_same_model(family(store, trained=champion.trained).evaluated, champion.release) is True
    assert is_same_model(family(store).evaluated, champion.release) is False


def test_gate_rows_are_those_of_the_evaluation(store: Store) -> None:
    table = pd.DataFrame({"label": [0, 1], "prediction": [1, 1]})
    assert gate_rows(family(store, gate=table, test=table.assign(prediction=0)).evaluated).equals(table)


@pytest.mark.parametrize(
    ("recipe", "sample", "barred"),
    [(SAMPLE, False, True), (SAMPLE, True, False), (REVIEWS, False, False), (REVIEWS, True, False)],
)
def test_sample_model_is_barred_by_real_data(store: Store, recipe: Recipe, sample: bool, barred: bool) -> None:
    check = bar_challenger(recipe, family(store).evaluated, family(store, sample=sample).release)
    expected = {
        "kind": "comparison",
        "name": "share of real data in training",
        "value": 0.0,
        "bound": 1.0,
        "passed": False,
        "estimate": None,
        "miss": "it was trained on the shipped sample, and the champion on real data",
        "waivable": False,
    }
    assert (check_document(check) if check else None) == (expected if barred else None)


@pytest.mark.parametrize(
    ("ours", "theirs", "days", "known"),
    [
        ("2026-03-01", "2026-03-03", -2.0, "its newest data are of 2026-03-01"),
        (None, "2026-03-03", math.nan, "no data that arrived is in it"),
    ],
)
def test_older_data_are_barred(store: Store, ours: str | None, theirs: str, days: float, known: str) -> None:
    check = bar_challenger(REVIEWS, family(store, cutoff=ours).evaluated, family(store, cutoff=theirs).release)
    assert check is not None
    assert check.value == pytest.approx(days, nan_ok=True)
    assert check_document(check) == {
        "kind": "comparison",
        "name": "days of data ahead of the champion's",
        "value": check.value,
        "bound": 0.0,
        "passed": False,
        "estimate": None,
        "miss": f"{known}, and the champion knows those of {theirs}",
        "waivable": False,
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("2026-03-03", "2026-03-03"), ("2026-03-04", "2026-03-03"), ("2026-03-04", None), (None, None)],
)
def test_equal_or_newer_data_are_not_barred(store: Store, ours: str | None, theirs: str | None) -> None:
    challenger, champion = family(store, cutoff=ours).evaluated, family(store, cutoff=theirs).release
    assert bar_challenger(REVIEWS, challenger, champion) is None


def test_model_trained_before_the_champion_is_barred(store: Store) -> None:
    first = family(store)
    second = family(store, validated=first.validated)
    check = bar_challenger(REVIEWS, first.evaluated, second.release)
    assert check is not None
    assert check_document(check) == {
        "kind": "comparison",
        "name": "trained after the champion",
        "value": 0.0,
        "bound": 1.0,
        "passed": False,
        "estimate": None,
        "miss": f"it was trained before the champion on the same data ({first.trained.ref}); to serve it again, roll "
        "back to its deployment (saebyeok rollback)",
        "waivable": False,
    }
    assert bar_challenger(REVIEWS, second.evaluated, first.release) is None
    # On other data, the order says nothing.
    assert bar_challenger(REVIEWS, first.evaluated, family(store).release) is None
    bare = made(store, "evaluate", validated=first.validated)
    assert bar_challenger(REVIEWS, bare, second.release) is None


TASK = {"kind": "classification", "objective": None, "labels": ["negative", "positive"]}


@pytest.mark.parametrize(
    ("changes", "known", "wanted"),
    [
        ({"kind": "regression", "labels": []}, "regression of texts", "classification of texts"),
        ({"objective": "cross-encoder"}, "classification of pairs", "classification of texts"),
        ({"labels": ["positive", "bad"]}, "bad, positive", "negative, positive"),
        ({"labels": ["positive"]}, "positive", "negative, positive"),
    ],
    ids=str,
)
def test_champion_of_another_task_needs_a_person(
    store: Store, changes: dict[str, Any], known: str, wanted: str
) -> None:
    champion = family(store, fields=TASK | changes)
    check = bar_challenger(REVIEWS, family(store).evaluated, champion.release)
    assert check is not None
    assert check_document(check) == {
        "kind": "comparison",
        "name": "same task as the champion",
        "value": 0.0,
        "bound": 1.0,
        "passed": False,
        "estimate": None,
        "miss": f"the champion knows another task ({known}) than this model ({wanted}), so they cannot be compared; "
        "set `renamed_labels` in the recipe if labels were only renamed, otherwise a person must approve the model",
        "waivable": True,
    }


@pytest.mark.parametrize(
    ("recipe", "fields"),
    [
        (REVIEWS, TASK),
        (REVIEWS, TASK | {"labels": ["positive", "negative"]}),
        (REVIEWS.model_copy(update={"renamed_labels": {"bad": "negative"}}), TASK | {"labels": ["bad", "positive"]}),
        (PAIRS, {"kind": "regression", "objective": "bi-encoder"}),
        # Damaged, which its loading reports.
        (REVIEWS, {"labels": ["bad"]}),
    ],
)
def test_champion_of_the_same_task_is_compared(store: Store, recipe: Recipe, fields: dict[str, Any]) -> None:
    assert bar_challenger(recipe, family(store).evaluated, family(store, fields=fields).release) is None


def compared(store: Store, load: Load, champion: Artifact, best: Best | None = None, **options: Any) -> list[Check]:
    """Return the comparisons of a model that wins 12 of 300 gate rows against `champion`."""
    labels, ours, theirs = won_and_lost(12, 0, 300)
    load((champion, sure(*theirs)))
    table = pd.DataFrame({"text": "a", "label": labels, "prediction": ours})
    evaluated = family(store, gate=table, **options).evaluated
    return compare_with_rivals(with_margin(REVIEWS, 0.02), evaluated, champion, best or Best())


def test_champion_and_best_are_compared(store: Store, load: Load) -> None:
    _, _, worse = won_and_lost(3, 0, 300)
    first, second = compared(store, load, family(store).release, Best(family(store).release, worse))
    assert first.name == "accuracy against the champion (+0.0400), at worst"
    assert second.name == "accuracy against the best before it (+0.0100), at worst"
    assert first.value > second.value
    assert first.passed
    assert second.passed


def test_without_a_best_only_the_champion_is_compared(store: Store, load: Load) -> None:
    (check,) = compared(store, load, family(store).release)
    assert check.name == "accuracy against the champion (+0.0400), at worst"


def test_without_a_champion_nothing_is_compared(store: Store) -> None:
    assert compare_with_rivals(REVIEWS, family(store).evaluated, None, Best()) == []


def test_champions_own_model_is_not_compared(store: Store, load: Load) -> None:
    champion = family(store)
    assert compared(store, load, champion.release, trained=champion.trained) == []


def test_barred_model_is_compared_with_nobody(store: Store, load: Load) -> None:
    (check,) = compared(store, load, family(store, cutoff="2026-03-03").release, cutoff="2026-03-01")
    assert check.name == "days of data ahead of the champion's"
