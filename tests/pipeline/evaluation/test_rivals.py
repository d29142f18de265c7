"""The models that a new one is compared with, and when it is not: on artifacts made by hand, without real models."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ArtifactError, BaseModelError, BrokenModelError, RefusedError, StoreError
from pipeline.evaluation import champions
from pipeline.evaluation.answer_cache import AnswerCache
from pipeline.evaluation.champions import Rival, load_rival, predictions_of, validation_of
from pipeline.evaluation.earlier_releases import find_rivals
from pipeline.evaluation.promotion_gate import Compared, bar_challenger, compare_with_rivals, is_same_model
from pipeline.evaluation.rivals import Rivals, gate_rows
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import ComparisonCheck, TaskCheck, check_document
from pipeline.store.figures import UsedArrival, ValidationFigures
from tests.support.families import TASK, Parrot, family, gate_table, made
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

        monkeypatch.setattr(champions, "load_model", parrot)
        return loaded

    return load


# --- the champion ---


def test_rival_returns_the_outputs_of_its_model(store: Store) -> None:
    outputs = sure(0, 1, 1, 0)
    rival = Rival(family(store).release, Parrot(REVIEWS, outputs))
    assert rival.answer(ROWS) is outputs


@pytest.mark.parametrize(
    ("item", "name"),
    [(Rival(None, Parrot(REVIEWS, sure(0))), "model"), (Rivals(ROWS, np.ones(4)), "best"), (Compared(), "checks")],  # type: ignore[arg-type]
)
def test_rivals_are_immutable(item: Any, name: str) -> None:
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
def test_predictions_have_todays_label_numbers(
    store: Store, load: Load, tmp_path: Path, labels: tuple[str, str], expected: list[int]
) -> None:
    release = family(store, fields=TASK | {"labels": labels}).release
    # Not a permutation of the identity: of each row, the highest counts.
    load((release, np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.6, 0.4]])))
    assert predictions_of(REVIEWS, release, ROWS, AnswerCache(tmp_path)).tolist() == expected


def test_predictions_of_a_regression_are_its_scores(store: Store, load: Load, tmp_path: Path) -> None:
    release = family(store, fields={"kind": "regression", "labels": []}).release
    scores = np.array([0.5, 4.5, 2.0, 1.0])
    load((release, scores))
    assert predictions_of(PAIRS, release, ROWS, AnswerCache(tmp_path)).tolist() == scores.tolist()


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
    with pytest.raises(ArtifactError) as caught:
        rival.answer(ROWS)
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
    assert (rival.release, rival.model.recipe) == (release.release, REVIEWS)
    assert isinstance(rival.model, Parrot)
    assert asked == [(REVIEWS, release.trained.ref, "cpu")]


def test_champion_that_cannot_be_loaded_stops_the_gate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> None:
        raise FileNotFoundError("no weights")

    monkeypatch.setattr(champions, "load_model", lost)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_rival(REVIEWS, family(store).release)


def test_release_has_the_validation_of_its_training(store: Store) -> None:
    release = family(store, cutoff="2026-01-02")
    assert validation_of(release.release).ref == release.validated.ref
    bare = made(store, "release")
    with pytest.raises(ArtifactError, match=rf"the champion {bare.ref} cannot be read .*has no input 'trained'"):
        validation_of(bare)


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


@pytest.mark.parametrize(
    ("files", "sha256", "barred"),
    [
        ({"train": "a", "test": "b"}, "c", True),
        ({"train": "d", "test": "b"}, "c", False),
        ({"train": "a", "test": "b"}, "d", False),
        (None, "c", False),
    ],
    ids=["same files", "another file", "another arrival", "unknown files"],
)
def test_earlier_model_is_barred_after_other_rules_for_the_same_files(
    store: Store, files: dict[str, str] | None, sha256: str, barred: bool
) -> None:
    # A bound of the data gate was changed, and changed back after the second model.
    def checked(bound: float, files: dict[str, str] | None, sha256: str) -> Artifact:
        used = (UsedArrival(date=date(2026, 3, 3), sha256=sha256),)
        figures = ValidationFigures(train_rows=9, test_rows=9, sample=True, cutoff=used[0].date, arrivals=used)
        return made(store, "validate", figures, fields={"data": bound} | ({"files": files} if files else {}))

    first = family(store, validated=checked(0.1, files, sha256))
    second = family(store, validated=checked(0.2, {"train": "a", "test": "b"} if files else None, "c"))
    check = bar_challenger(REVIEWS, first.evaluated, second.release)
    assert (check is not None and check_document(check)["name"] == "trained after the champion") == barred
    assert bar_challenger(REVIEWS, second.evaluated, first.release) is None


def test_older_model_of_other_labels_is_a_persons_choice(store: Store) -> None:
    first = family(store)
    second = family(store, validated=first.validated, fields=TASK | {"labels": ["bad", "good"]})
    check = bar_challenger(REVIEWS, first.evaluated, second.release)
    assert check is not None
    assert check.waivable


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


def compared(job: Job, load: Load, champion: Artifact, **rivals: Any) -> Compared:
    """Return the comparison of a model that wins 12 of 300 gate rows against `champion`."""
    labels, ours, theirs = won_and_lost(12, 0, 300)
    load((champion, sure(*theirs)))
    evaluated = family(job.store, sample=False, gate=gate_table(labels, ours)).evaluated
    found = replace(find_rivals(job, evaluated, champion), **rivals)
    return compare_with_rivals(job, evaluated, champion, found)


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(with_margin(REVIEWS, 0.02))


def test_champion_and_best_are_compared(job: Job, load: Load) -> None:
    _, _, worse = won_and_lost(3, 0, 300)
    best, champion = (family(job.store, sample=False).release for _ in range(2))
    found = compared(job, load, champion, best=best, answers=worse)
    first, second = found.checks
    assert isinstance(first, ComparisonCheck)
    assert first.name == "accuracy against the champion (+0.0400), at worst"
    assert second.name == "accuracy against the best before it (+0.0100), at worst"
    assert first.value > second.value
    assert first.passed
    assert second.passed
    assert (first.rows, first.gate_rows, first.fewest) == (300, 300, 100)
    assert [(item.model, round(item.value, 3), item.held_out) for item in found.scores] == [
        ("challenger", 1.0, 1.0),
        ("champion", 0.96, 1.0),
    ]
    assert found.scores[1].ref == champion.ref


def test_only_counted_rows_are_compared_and_a_bar_is_kept(job: Job, load: Load) -> None:
    # Of the 12 rows that the model wins, the first 10 do not count.
    counted = np.arange(300) >= 10
    bar = TaskCheck(value=0.0, bound=1.0, passed=False, task="a", champions="b", rival="best")
    found = compared(job, load, family(job.store, sample=False, gate_share=0.5).release, counted=counted, bar=bar)
    check, kept = found.checks
    assert isinstance(check, ComparisonCheck)
    assert check.estimate.value == pytest.approx(2 / 290)
    assert (check.rows, check.gate_rows) == (290, 300)
    assert kept == bar
    assert [item.held_out for item in found.scores] == [1.0, 0.5]


def test_without_a_best_only_the_champion_is_compared(job: Job, load: Load) -> None:
    (check,) = compared(job, load, family(job.store, sample=False).release).checks
    assert check.name == "accuracy against the champion (+0.0400), at worst"


def test_unreadable_champion_is_not_compared(job: Job, load: Load) -> None:
    champion = family(job.store, sample=False)
    shutil.rmtree(Path(job.store.uri) / champion.trained.ref)
    with pytest.raises(ArtifactError, match=rf"the champion {champion.release.ref} cannot be read"):
        compared(job, load, champion.release)
