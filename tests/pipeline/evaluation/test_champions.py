"""Champions: their answers to the current gate rows, the best earlier release, and notes on unreadable ones."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import ArtifactError, StoreError
from pipeline.evaluation.champions import Best, find_best, load_rival, validation_of
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import rank_served
from pipeline.tasks.trained import load_trained
from tests.support.gate_releases import own_copy, release_of, release_that_reached, republished, serve, without_numbers
from tests.support.small_pipeline import Road
from tests.support.tiny_releases import make_artifact

pytestmark = pytest.mark.torch


@pytest.fixture
def own(reviews: Road, tmp_path: Path) -> Road:
    """Return the reviews in a separate store."""
    return own_copy(reviews, tmp_path)


def served(road: Road, *values: float, sample: bool = True) -> list[Artifact]:
    """Return releases that were served in turn, each with its gate metric; the last is the champion."""
    releases = [release_that_reached(road, value, sample=sample) for value in values]
    for release in releases:
        serve(release)
    return releases


def ranked(road: Road, *, sample: bool = True) -> tuple[list[str], list[str]]:
    """Return refs in rank order, and notes."""
    notes: list[str] = []
    found = rank_served(road.job.store, "nsmc", "accuracy", sample=sample, notes=notes)
    return [item.ref for item in found], notes


def best_of(road: Road, known: Artifact | None = None) -> Best:
    """Return the best served release without `known`, with its answers to the gate rows."""
    refs = {str(known.input_ref("trained"))} if known else set()
    return find_best(road.recipe, road.job.store, refs, pd.read_parquet(road.evaluated.path / "gate.parquet"))


def lose(road: Road, release: Artifact, name: str) -> None:
    """Delete an input of the release, as by accident."""
    shutil.rmtree(road.job.store.open(str(release.input_ref(name))).path)


# --- answers of a rival ---


def test_a_classifier_answers_with_label_numbers(reviews: Road) -> None:
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    answers = load_rival(reviews.recipe, release_of(reviews.trained)).answers(reviews.recipe, gate)
    assert (answers == gate["prediction"]).mean() > 0.995


def test_it_answers_without_a_gpu(reviews: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> None:
        raise AssertionError("a GPU is the training's")

    monkeypatch.setattr("pipeline.tasks.trained.best_device", taken)
    rival = load_rival(reviews.recipe, release_of(reviews.trained))
    assert rival.model.device.type == "cpu"


def test_a_regression_answers_with_scores(pairs: Road) -> None:
    gate = pd.read_parquet(pairs.evaluated.path / "gate.parquet")
    answers = load_rival(pairs.recipe, release_of(pairs.trained)).answers(pairs.recipe, gate)
    assert answers == pytest.approx(gate["prediction"].to_numpy(), abs=1e-3)


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["positive", "negative"], (1, 0)),
        # A label that was removed from the recipe is never right and does not get another label's number.
        (["negative", "neutral"], (0, -1)),
        (["bad", "good"], (-1, -1)),
    ],
)
def test_labels_are_compared_by_name(reviews: Road, labels: list[str], numbers: tuple[int, int]) -> None:
    renamed = republished(reviews.trained, fields=reviews.trained.manifest.fields | {"labels": labels})
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    outputs = load_trained(reviews.recipe, reviews.trained).answer(gate).argmax(axis=1)
    answers = load_rival(reviews.recipe, release_of(renamed)).answers(reviews.recipe, gate)
    assert set(outputs) == {0, 1}
    assert answers.tolist() == [numbers[output] for output in outputs]


def test_labels_are_found_where_tonights_recipe_has_more(reviews: Road) -> None:
    recipe = reviews.recipe.model_copy(update={"labels": ("neutral", "positive", "negative")})
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    before = load_rival(reviews.recipe, release_of(reviews.trained)).answers(reviews.recipe, gate)
    after = load_rival(recipe, release_of(reviews.trained)).answers(recipe, gate)
    assert after.tolist() == [{0: 2, 1: 1}[number] for number in before]


# --- the champion ---


def broken(road: Road) -> dict[str, Artifact]:
    gone = release_of(republished(road.trained))
    lose(road, gone, "trained")
    cut = republished(road.trained)
    (cut.path / "model" / "model.safetensors").write_bytes(b"cut")
    return {
        "gone": gone,
        "cut": release_of(cut),
        "no weights": release_of(republished(road.trained, files={"model/model.safetensors": b"no weights"})),
        "no fields": release_of(republished(road.trained, fields={})),
        "no input": make_artifact(road.job.store, "release", "nsmc", {}),
    }


@pytest.mark.parametrize("how", ["gone", "cut", "no weights", "no fields", "no input"])
def test_unreadable_champion_error_says_what_to_do(own: Road, how: str) -> None:
    champion = broken(own)[how]
    with pytest.raises(
        ArtifactError, match=rf"the champion {champion.ref} cannot be read.*saebyeok rollback"
    ) as caught:
        load_rival(own.recipe, champion)
    assert not caught.value.retryable


def test_missing_validation_makes_the_champion_unreadable(own: Road) -> None:
    champion = release_of(own.trained)
    assert validation_of(champion).ref == own.validated.ref
    shutil.rmtree(own.validated.path)
    with pytest.raises(ArtifactError, match=rf"the champion {champion.ref} cannot be read"):
        validation_of(champion)


# --- the best before it ---


def test_earlier_releases_are_ranked_by_their_gate_metric(own: Road) -> None:
    low, high, middle, champion = served(own, 0.7, 0.9, 0.8, 0.95)
    assert ranked(own) == ([high.ref, middle.ref, low.ref], [])
    best = best_of(own, champion)
    assert best.release is not None
    assert best.release.ref == high.ref
    assert best.notes == ()


def test_of_equal_releases_the_first_is_the_best(own: Road) -> None:
    first, second, _ = served(own, 0.8, 0.8, 0.7)
    assert ranked(own) == ([first.ref, second.ref], [])


def test_without_an_earlier_release_there_is_no_best(own: Road) -> None:
    assert ranked(own) == ([], [])
    served(own, 0.9)
    assert ranked(own) == ([], [])
    assert best_of(own) == Best(None, None, ())


def test_what_is_compared_anyway_is_not_the_best(own: Road) -> None:
    high, low, _ = served(own, 0.9, 0.8, 0.7)
    best = best_of(own, high)
    assert best.release is not None
    assert best.release.ref == low.ref


def test_releases_of_another_recipe_do_not_count(own: Road) -> None:
    other = make_artifact(own.job.store, "release", "klue-sts", {})
    serve(other)
    high, _ = served(own, 0.9, 0.8)
    assert ranked(own) == ([high.ref], [])


def test_sample_and_real_are_never_mixed(own: Road) -> None:
    (made_up,) = served(own, 0.99)
    (real,) = served(own, 0.7, sample=False)
    served(own, 0.6, sample=False)
    assert ranked(own, sample=False) == ([real.ref], [])
    assert ranked(own, sample=True) == ([made_up.ref], [])
    best = best_of(own.with_recipe(own.recipe.model_copy(update={"sample": False})))
    assert best.release is not None
    assert best.release.ref == real.ref


def test_what_a_rollback_gave_up_does_not_count(own: Road) -> None:
    first, given_up = served(own, 0.8, 0.99)
    serve(first, intent="rollback", of=1)
    second = release_that_reached(own, 0.7)
    serve(second)
    # The live one's history is first, second: the release with the best metric was rolled back.
    assert ranked(own) == ([first.ref], [])
    assert given_up.ref not in ranked(own)[0]


def test_a_release_without_a_figure_is_no_best(own: Road) -> None:
    served(own, math.nan, 0.9)
    assert ranked(own) == ([], [])


def test_pruned_release_is_skipped_silently(own: Road) -> None:
    pruned, low, _ = served(own, 0.9, 0.7, 0.8)
    own.job.store.prune(pruned)
    assert ranked(own) == ([low.ref], [])


def test_release_with_pruned_evaluation_is_skipped_silently(own: Road) -> None:
    bare, low, _ = served(own, 0.9, 0.7, 0.8)
    own.job.store.prune(bare.input("evaluated"))
    assert ranked(own) == ([low.ref], [])


@pytest.mark.parametrize("lost", ["release", "evaluated"])
def test_one_that_was_lost_is_named(own: Road, lost: str) -> None:
    gone, low, _ = served(own, 0.9, 0.7, 0.8)
    shutil.rmtree(gone.path if lost == "release" else gone.input("evaluated").path)
    refs, notes = ranked(own)
    assert refs == [low.ref]
    (note,) = notes
    assert note.startswith(f"the earlier release {gone.ref} cannot be read (")


def test_old_release_without_gate_metrics_is_named(own: Road) -> None:
    figures = {name: value for name, value in own.evaluated.manifest.figures.items() if name != "gate"}
    old = release_of(republished(own.trained), republished(own.evaluated, figures=figures))
    serve(old)
    served(own, 0.8)
    refs, notes = ranked(own)
    assert refs == []
    assert len(notes) == 1
    assert old.ref in notes[0]


def lost(trained: Artifact, *, on_purpose: bool = False) -> Artifact:
    gone = republished(trained)
    if on_purpose:
        trained.store.prune(gone)
    else:
        shutil.rmtree(gone.path)
    return gone


def with_fields(**fields: Any) -> Callable[[Artifact], Artifact]:
    return lambda trained: republished(trained, fields=trained.manifest.fields | fields)


#: Damage after which a trained model cannot predict.
SPOILT: dict[str, Callable[[Artifact], Artifact]] = {
    "lost": lost,
    "deleted": partial(lost, on_purpose=True),
    "no numbers": without_numbers,
    "damaged": lambda trained: republished(trained, files={"model/model.safetensors": b"no weights"}),
    "no tokenizer": lambda trained: republished(trained, files={"model/tokenizer.json": b"{"}),
    "no fields": lambda trained: republished(trained, fields={}),
    "no labels": with_fields(labels=None),
    "more labels": with_fields(labels=["negative", "neutral", "positive"]),
    "a length that is none": with_fields(max_length="all"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_best_that_cannot_answer_gives_way_to_the_next(own: Road, how: str) -> None:
    spoilt = release_that_reached(own, 0.9, trained=SPOILT[how](own.trained))
    serve(spoilt)
    low, _ = served(own, 0.8, 0.7)
    best = best_of(own)
    assert best.release is not None
    assert best.release.ref == low.ref
    (note,) = best.notes
    assert note.startswith(f"the earlier release {spoilt.ref} cannot be read (")
    assert note.endswith("); the model was not compared with it")
    # The advice for a broken champion does not belong here.
    assert "roll back" not in note


class Away(Store):
    """A store that becomes unreachable after its log was read."""

    def open(self, ref: str) -> Artifact:
        raise StoreError(f"{ref}: the bucket is away")


def test_store_that_is_away_is_no_lost_release(own: Road, tmp_path: Path) -> None:
    served(own, 0.9, 0.7)
    with pytest.raises(StoreError, match="the bucket is away") as caught:
        find_best(own.recipe, Away(own.job.store.uri, tmp_path), set(), pd.DataFrame())
    assert caught.value.retryable


def test_best_answers_as_the_recipe_counts_labels_now(own: Road) -> None:
    gate = pd.read_parquet(own.evaluated.path / "gate.parquet")["prediction"]
    for labels, numbers in ((("negative", "positive"), (0, 1)), (("good", "negative"), (1, -1))):
        road = own.with_recipe(own.recipe.model_copy(update={"labels": labels}))
        served(own, 0.9, 0.7)
        vars(road)["evaluated"] = own.evaluated
        answers = best_of(road).answers
        assert answers is not None
        assert (answers == gate.map(dict(enumerate(numbers)))).mean() > 0.99


def test_a_deployment_log_that_cannot_be_read_is_named(own: Road) -> None:
    served(own, 0.9, 0.8)
    (Path(own.job.store.uri) / "deployments" / "000001.json").write_text("{", encoding="utf-8")
    refs, notes = ranked(own)
    assert refs == []
    (note,) = notes
    assert note.startswith("the deployment log cannot be read (")
