"""Champions: their answers to the current gate rows, the best earlier release, and notes on unreadable ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import ArtifactError
from pipeline.evaluation.answer_cache import AnswerCache
from pipeline.evaluation.champions import load_rival, predictions_of, validation_of
from pipeline.evaluation.earlier_releases import find_rivals
from pipeline.evaluation.rivals import Rivals
from pipeline.store.artifacts import Artifact
from pipeline.tasks.trained import load_trained
from tests.support.gate_releases import of_other_data, own_copy, release_of, republished, serve, without_numbers
from tests.support.judged import challenger
from tests.support.small_pipeline import Road
from tests.support.tiny_releases import make_artifact

pytestmark = pytest.mark.torch


@pytest.fixture
def own(reviews: Road, tmp_path: Path) -> Road:
    """Return the reviews in a separate store."""
    return own_copy(reviews, tmp_path)


def answers(road: Road, release: Artifact) -> Any:
    """Return the predictions of a release for the gate rows, computed anew."""
    gate = pd.read_parquet(road.evaluated.path / "gate.parquet")
    with tempfile.TemporaryDirectory() as directory:
        return predictions_of(road.recipe, release, gate, AnswerCache(Path(directory)))


def lose(road: Road, release: Artifact, name: str) -> None:
    """Delete an input of the release, as by accident."""
    shutil.rmtree(road.job.store.open(str(release.input_ref(name))).path)


# --- answers of a rival ---


def test_a_classifier_answers_with_label_numbers(reviews: Road) -> None:
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    assert (answers(reviews, release_of(reviews.trained)) == gate["prediction"]).mean() > 0.995


def test_it_answers_without_a_gpu(reviews: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> None:
        raise AssertionError("a GPU is the training's")

    monkeypatch.setattr("pipeline.tasks.trained.best_device", taken)
    rival = load_rival(reviews.recipe, release_of(reviews.trained))
    assert rival.model.device.type == "cpu"


def test_a_regression_answers_with_scores(pairs: Road) -> None:
    gate = pd.read_parquet(pairs.evaluated.path / "gate.parquet")
    assert answers(pairs, release_of(pairs.trained)) == pytest.approx(gate["prediction"].to_numpy(), abs=1e-3)


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
    assert set(outputs) == {0, 1}
    assert answers(reviews, release_of(renamed)).tolist() == [numbers[output] for output in outputs]


def test_labels_are_found_where_tonights_recipe_has_more(reviews: Road) -> None:
    recipe = reviews.recipe.model_copy(update={"labels": ("neutral", "positive", "negative")})
    before = answers(reviews, release_of(reviews.trained))
    changed = reviews.with_recipe(recipe)
    vars(changed)["evaluated"] = reviews.evaluated
    after = answers(changed, release_of(reviews.trained))
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


def rivals_of(road: Road, champion: Artifact) -> Rivals:
    """Return the rivals of another run's model besides `champion`."""
    return find_rivals(road.job, challenger(road, 0, 0), champion)


def lost(trained: Artifact) -> Artifact:
    gone = republished(trained)
    shutil.rmtree(gone.path)
    return gone


def with_fields(**fields: Any) -> Callable[[Artifact], Artifact]:
    return lambda trained: republished(trained, fields=trained.manifest.fields | fields)


#: Damage after which a trained model cannot predict.
SPOILT: dict[str, Callable[[Artifact], Artifact]] = {
    "lost": lost,
    "no numbers": without_numbers,
    "damaged": lambda trained: republished(trained, files={"model/model.safetensors": b"no weights"}),
    "no tokenizer": lambda trained: republished(trained, files={"model/tokenizer.json": b"{"}),
    "no fields": lambda trained: republished(trained, fields={}),
    "no labels": with_fields(labels=None),
    "a length that is none": with_fields(max_length="all"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_best_that_cannot_answer_gives_way_to_the_next(own: Road, how: str) -> None:
    spoilt = release_of(SPOILT[how](own.trained))
    serve(spoilt)
    sound, champion = (release_of(of_other_data(own.trained)) for _ in range(2))
    serve(sound)
    serve(champion)
    rivals = rivals_of(own, champion)
    assert rivals.best is not None
    assert rivals.best.ref == sound.ref
    (note,) = rivals.notes
    assert note.startswith(f"the earlier release {spoilt.ref} cannot be read (")
    assert note.endswith("); the model was not compared with it")
    # The advice for a broken champion does not belong here.
    assert "roll back" not in note
