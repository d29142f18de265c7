"""Figures of the stages: read from manifests of every age, and written without a change."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import ArtifactError
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.figures import (
    Estimate,
    EvaluationFigures,
    ReleaseFigures,
    TokenizationFigures,
    TrainingFigures,
    ValidationFigures,
)
from tests.support.made_figures import evaluation

BASE = {"base": "scratch", "revision": None}


def published(store: Store, figures: dict[str, Any]) -> Artifact:
    """Return an artifact with these figures, opened from the store."""
    with store.draft() as draft:
        made = store.publish(draft, "train", "nsmc", "k", run="r", inputs={}, fields={}, figures=figures)
    return store.open(made.ref)


def test_figures_are_the_same_after_reading(store: Store) -> None:
    figures = ValidationFigures(
        train_rows=150,
        test_rows=50,
        warnings=("one", "two"),
        sample=False,
        cutoff=date(2015, 8, 6),
        arrivals=({"date": date(2015, 8, 6), "sha256": "a"},),
        overlap={"train_duplicates": 3},
    )
    assert figures.document() == {
        "train_rows": 150,
        "test_rows": 50,
        "warnings": ["one", "two"],
        "sample": False,
        "cutoff": "2015-08-06",
        "arrivals": [{"date": "2015-08-06", "sha256": "a"}],
        "overlap": {"train_duplicates": 3},
    }
    assert ValidationFigures.read(published(store, figures.document())) == figures


def test_none_is_written_and_absent_stays_absent() -> None:
    trained = TrainingFigures(seconds=1.5, validation={"f1": 0.5}, calibration=None, base=BASE)
    assert trained.document() == {"seconds": 1.5, "validation": {"f1": 0.5}, "calibration": None, "base": BASE}
    assert (trained.euclidean, trained.gpu_memory_gib, trained.history) == (None, None, ())


def test_history_keeps_whole_numbers_and_fractions() -> None:
    history = ({"epoch": 1, "loss": 1.0},)
    (row,) = TrainingFigures(seconds=1.0, validation={}, history=history, base=BASE).document()["history"]
    assert (type(row["epoch"]), type(row["loss"])) == (int, float)


def test_nan_survives_the_store(store: Store) -> None:
    figures = evaluation({"pearson": math.nan})
    read = EvaluationFigures.read(published(store, figures.document()))
    assert math.isnan(read.gate["pearson"].value)


def test_manifest_of_an_older_version_is_read(store: Store) -> None:
    older = {"train_rows": 3, "test_rows": 2, "sample": True, "gone": [1]}
    read = ValidationFigures.read(published(store, older))
    assert (read.cutoff, read.arrivals, read.warnings, read.quarantined) == (None, (), (), None)


def test_metrics_of_a_release_stand_beside_its_figures() -> None:
    told = {"id": "nsmc-0", "variants": {"cpu": ["fp32"]}, "parity": {}, "latency_ms": 1.5, "accuracy": 0.875}
    assert ReleaseFigures.model_validate(told).document() == told


def test_lines_of_a_bi_encoder_are_read(store: Store) -> None:
    line = {"slope": 2.5, "intercept": -1.0}
    told = {"seconds": 1.0, "validation": {}, "calibration": line, "euclidean": None, "base": BASE}
    read = TrainingFigures.read(published(store, told))
    assert (read.calibration, read.euclidean) == (ScoreLine(slope=2.5, intercept=-1.0), None)


@pytest.mark.parametrize(
    ("figures", "key"),
    [
        ({"base": BASE, "vocabulary": 9}, "train"),
        ({"base": {"base": "scratch"}, "vocabulary": 9}, "base.revision"),
        ({"base": BASE, "vocabulary": "many"}, "vocabulary"),
    ],
)
def test_damaged_figures_raise_and_name_the_key(figures: dict[str, Any], key: str, store: Store) -> None:
    artifact = published(store, figures)
    with pytest.raises(ArtifactError, match=rf"{artifact.uri}: figure {key} of its manifest is damaged"):
        TokenizationFigures.read(artifact)


def test_figures_cannot_be_changed() -> None:
    figures = evaluation({"f1": 0.5})
    with pytest.raises(ValidationError, match="frozen_instance"):
        figures.test_rows = 1
    with pytest.raises(ValidationError, match="frozen_instance"):
        figures.test["f1"].low = 0.0
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Estimate.model_validate({"value": 0.5, "low": 0.4, "high": 0.6, "middle": 0.5})
