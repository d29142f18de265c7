"""Class weights and focal loss: by hand, additive over parts, and their effect on a rare label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.errors import RecipeError
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import TrainSpec
from pipeline.store.figures import EvaluationFigures, TrainingFigures
from pipeline.training.class_loss import class_loss
from tests.support.small_pipeline import Road, open_road, small_recipe

pytestmark = pytest.mark.torch

LABELS = np.array([0] * 6 + [1] * 3 + [2])
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -2.0]])
WANTED = torch.tensor([0, 0, 1, 2])


def test_plain_cross_entropy_needs_no_loss_of_its_own() -> None:
    assert class_loss(TrainSpec(), LABELS, 3) is None


def test_weights_make_labels_equal_and_have_mean_one() -> None:
    loss = class_loss(TrainSpec(class_weights=True), LABELS, 3)
    assert loss is not None
    weights = torch.tensor([10 / 18, 10 / 9, 10 / 3])
    assert float((weights[LABELS]).mean()) == pytest.approx(1)
    by_hand = (weights[WANTED] * functional.cross_entropy(LOGITS, WANTED, reduction="none")).mean()
    assert float(loss(LOGITS, WANTED)) == pytest.approx(float(by_hand), rel=1e-6)


def test_focal_loss_lowers_the_weight_of_known_rows() -> None:
    loss = class_loss(TrainSpec(focal=2.0), LABELS, 3)
    assert loss is not None
    known = torch.softmax(LOGITS, dim=1)[torch.arange(4), WANTED]
    by_hand = (-((1 - known) ** 2) * known.log()).mean()
    assert float(loss(LOGITS, WANTED)) == pytest.approx(float(by_hand), rel=1e-6)


def test_parts_of_a_batch_add_up() -> None:
    loss = class_loss(TrainSpec(class_weights=True, focal=1.5), LABELS, 3)
    assert loss is not None
    parts = [loss(LOGITS[rows], WANTED[rows]) * len(WANTED[rows]) / 4 for rows in (slice(0, 1), slice(1, 4))]
    assert float(sum(parts)) == pytest.approx(float(loss(LOGITS, WANTED)), rel=1e-6)


def test_only_classifications_have_class_weights() -> None:
    for settings in ({"train.class_weights": True}, {"train.focal": 2.0}):
        with pytest.raises(RecipeError, match=r"train\.class_weights` and `train\.focal` are only for classifications"):
            load_recipe("klue-sts", "embedded", overrides=settings)
    plain = load_recipe("nsmc", "embedded").train
    # They are younger than many stores, whose keys must stay.
    assert not {"class_weights", "focal"} & plain.model_dump().keys()


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Return a pipeline of a tiny classifier on rows of which one in 12 is positive."""
    road = open_road(small_recipe("nsmc", train__epochs=4), tmp_path_factory.mktemp("rare"), train=4000, test=800)
    rows = {name: table[(table["label"] == 0) | (table.index % 11 == 0)] for name, table in road.rows.items()}
    return road.with_rows(rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": True},
        pytest.param({"class_weights": True, "focal": 1.0}, marks=pytest.mark.slow),
    ],
)
def test_rare_label_is_found_more_often(rare: Road, settings: dict[str, float]) -> None:
    chosen = rare.recipe.model_copy(update={"train": rare.recipe.train.model_copy(update=settings)})
    weighted = rare.with_recipe(chosen)
    assert weighted.trained.key != rare.trained.key
    plain, balanced = (EvaluationFigures.read(road.evaluated).classes[1] for road in (rare, weighted))
    assert (plain.label, plain.rows) == (balanced.label, balanced.rows) == ("positive", plain.rows)
    assert plain.rows < 60
    assert balanced.recall > plain.recall
    figures = TrainingFigures.read(weighted.trained)
    best = max(figures.history, key=lambda epoch: epoch["eval_f1"])
    assert figures.validation["f1"] == best["eval_f1"]


def test_class_figures_follow_from_the_confusion_matrix(rare: Road) -> None:
    classes = EvaluationFigures.read(rare.evaluated).classes
    assert [item.label for item in classes] == ["negative", "positive"]
    assert sum(item.rows for item in classes) == EvaluationFigures.read(rare.evaluated).test_rows
    for item in classes:
        total = item.precision + item.recall
        assert item.f1 == pytest.approx(2 * item.precision * item.recall / total if total else 0.0)
    report = Path(rare.decided.path / "report.html").read_text(encoding="utf-8")
    assert "Precision" in report
