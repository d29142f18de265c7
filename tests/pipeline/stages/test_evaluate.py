"""The evaluate stage: its figures follow from the stored predictions, with and without texts that are in train."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from scipy.stats import pearsonr

from pipeline.data.splits import split_rows
from pipeline.errors import ArtifactError, BrokenModelError, DataError
from pipeline.metrics.calibration import measure_calibration
from pipeline.models.heads import BiEncoder
from pipeline.recipes.loading import load_recipe
from pipeline.stages.evaluate import evaluate
from pipeline.stages.tokenize import tokenize
from pipeline.tasks.registry import task_of
from pipeline.tasks.trained import load_trained
from tests.support.gate_releases import without_numbers
from tests.support.small_pipeline import Road, make_validated, small_recipe

pytestmark = pytest.mark.torch


@pytest.fixture(params=["nsmc", "klue-sts"])
def road(request: pytest.FixtureRequest, reviews: Road, pairs: Road) -> Road:
    return reviews if request.param == "nsmc" else pairs


@pytest.fixture(scope="module")
def repeated(reviews: Road) -> Road:
    """Return reviews with 30 test rows that have near copies in train, half of them with the other label.

    Every third of their texts is changed a little.
    """
    copied = reviews.rows["train"].head(30).copy()
    copied.loc[copied.index[::3], "text"] = copied["text"].iloc[::3].str.replace(" ", "  ") + " "
    copied["id"] = [f"copy-{number}" for number in range(30)]
    copied.loc[copied.index[:15], "label"] = 1 - copied["label"].iloc[:15]
    return reviews.with_rows(reviews.rows | {"test": pd.concat([reviews.rows["test"], copied], ignore_index=True)})


def test_figures_follow_from_the_stored_predictions(road: Road) -> None:
    table = pd.read_parquet(road.evaluated.path / "test.parquet")
    found = task_of(road.recipe).metrics(table["label"].to_numpy(), table["prediction"].to_numpy())
    figures = road.evaluated.manifest.figures
    assert {name: figures["test"][name]["value"] for name in road.recipe.metrics} == pytest.approx(found)
    for figure in figures["test"].values():
        assert figure["low"] < figure["value"] < figure["high"]
    assert figures["test_rows"] == len(table) == len(road.rows["test"])


def test_predictions_equal_the_models_on_the_texts(road: Road) -> None:
    for name in ("test", "gate"):
        table = pd.read_parquet(road.evaluated.path / f"{name}.parquet")
        answers = load_trained(road.recipe, road.trained).answer(table)
        if road.recipe.kind == "classification":
            assert (table["prediction"] == answers.argmax(axis=1)).mean() > 0.995
            assert table["probability"].to_numpy() == pytest.approx(answers.max(axis=1), abs=1e-4)
        else:
            assert table["prediction"].to_numpy() == pytest.approx(answers, abs=1e-3)


def test_gate_split_was_not_seen_in_training(road: Road) -> None:
    gate = pd.read_parquet(road.evaluated.path / "gate.parquet")
    trained_on = pd.read_parquet(road.tokenized.path / "train.parquet")["id"]
    assert gate["id"].tolist() == split_rows(road.recipe, road.rows["train"])["gate"]["id"].tolist()
    assert not set(gate["id"]) & set(trained_on)
    assert road.evaluated.manifest.figures["gate_rows"] == len(gate) > 0


def test_second_figures_exclude_rows_in_train(repeated: Road) -> None:
    figures = repeated.evaluated.manifest.figures
    table = pd.read_parquet(repeated.evaluated.path / "test.parquet")
    new = table[~table["in_train"]]
    assert len(table) - len(new) >= 30
    assert figures["test_without_train_texts_rows"] == len(new)
    labels, predictions = new["label"].to_numpy(), new["prediction"].to_numpy()
    assert figures["test_without_train_texts"] == task_of(repeated.recipe).intervals(labels, predictions)
    # Half of the copies have the wrong label.
    assert figures["test"]["accuracy"]["value"] != figures["test_without_train_texts"]["accuracy"]["value"]


def test_a_test_file_of_nothing_new_is_refused(reviews: Road) -> None:
    copied = reviews.with_rows(reviews.rows | {"test": reviews.rows["train"].head(40)})
    with pytest.raises(DataError, match="of every row, or a near copy of it, is also in"):
        evaluate(copied.job, copied.validated, copied.tokenized, reviews.trained)


def test_tokens_of_other_rows_are_refused(reviews: Road, pairs: Road) -> None:
    fewer = reviews.rows | {"test": reviews.rows["test"].head(100)}
    other = make_validated(reviews.job, fewer)
    with pytest.raises(ArtifactError, match=r"test\.parquet has other rows than validate; run tokenize with --force"):
        evaluate(reviews.job, other, reviews.tokenized, reviews.trained)
    assert tokenize(reviews.job, other).key != reviews.tokenized.key


def test_the_pictures_are_some(road: Road) -> None:
    pictures = sorted(road.evaluated.path.glob("*.png"))
    wanted = ["plot.png", "reliability.png"] if road.recipe.kind == "classification" else ["plot.png"]
    assert [file.name for file in pictures] == wanted
    for file in pictures:
        assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pixels = imread(file)
        assert min(pixels.shape[:2]) > 400
        assert np.ptp(pixels[..., :3]) > 0.9


def test_the_gate_side_has_figures_of_its_own(road: Road) -> None:
    gate = pd.read_parquet(road.evaluated.path / "gate.parquet")
    found = task_of(road.recipe).metrics(gate["label"].to_numpy(), gate["prediction"].to_numpy())
    figures = road.evaluated.manifest.figures
    assert {name: figures["gate"][name]["value"] for name in road.recipe.metrics} == pytest.approx(found)
    assert figures["sample"] is True


def test_slices_are_parts_of_the_test_file(road: Road) -> None:
    figures = road.evaluated.manifest.figures
    for name in ("length", "negation"):
        parts = [item for item in figures["slices"] if item["slice"] == name]
        assert sum(item["rows"] for item in parts) == figures["test_rows"]
    first = figures["test"][road.recipe.metrics[0]]["value"]
    lengths = [item["figure"]["value"] for item in figures["slices"] if item["slice"] == "length"]
    assert min(lengths) - 0.05 < first < max(lengths) + 0.05


def test_a_slice_of_rows_that_train_has_too(repeated: Road) -> None:
    parts = {item["part"]: item for item in repeated.evaluated.manifest.figures["slices"] if item["slice"] == "text"}
    figures = repeated.evaluated.manifest.figures
    assert parts["new"]["rows"] == figures["test_without_train_texts_rows"]
    assert parts["in train too"]["rows"] == figures["test_rows"] - parts["new"]["rows"]
    assert parts["new"]["figure"]["value"] == figures["test_without_train_texts"]["accuracy"]["value"]


def test_only_a_classification_is_calibrated(reviews: Road, pairs: Road) -> None:
    table = pd.read_parquet(reviews.evaluated.path / "test.parquet")
    sure = table["probability"].to_numpy()
    both = np.where((table["prediction"] == 1).to_numpy()[:, None], np.stack([1 - sure, sure], 1), 0.0)
    both = np.where((table["prediction"] == 0).to_numpy()[:, None], np.stack([sure, 1 - sure], 1), both)
    found = measure_calibration(table["label"].to_numpy(), both)
    assert reviews.evaluated.manifest.figures["calibration"]["ece"] == pytest.approx(found["ece"], abs=1e-6)
    assert "calibration" not in pairs.evaluated.manifest.figures


def test_pairs_are_compared_by_cosine_and_by_distance(reviews: Road, pairs: Road) -> None:
    figures = pairs.evaluated.manifest.figures
    assert figures["similarity"]["cosine"] == figures["test"]
    module = load_trained(pairs.recipe, pairs.trained).network.module
    assert isinstance(module, BiEncoder)
    encoded = pd.read_parquet(pairs.tokenized.path / "test.parquet")
    distances = []
    with torch.no_grad():
        for pair in encoded[["input_ids", "input_ids_pair"]].itertuples(index=False):
            left, right = (
                module.vectors(ids, torch.ones_like(ids)) for ids in (torch.tensor(side)[None] for side in pair)
            )
            distances.append((left - right).norm().item())
    wanted = abs(pearsonr(distances, encoded["label"]).statistic)
    # Scores are clipped to the range, which changes r slightly.
    assert figures["similarity"]["euclidean"]["pearson"]["value"] == pytest.approx(wanted, abs=0.03)
    assert figures["similarity"]["euclidean"]["pearson"] != figures["similarity"]["cosine"]["pearson"]
    assert "similarity" not in reviews.evaluated.manifest.figures


def test_texts_are_in_files_not_in_figures(road: Road) -> None:
    # Figures go to the tracker, which may run at another company.
    mistakes = json.loads((road.evaluated.path / "mistakes.json").read_text(encoding="utf-8"))
    assert 0 < len(mistakes) <= 20
    told = json.dumps(road.evaluated.manifest.figures, ensure_ascii=False)
    assert not [row["text"] for row in mistakes if row["text"] in told]


def test_plots_allow_one_label_or_constant_score(tmp_path: Path) -> None:
    sure = np.tile([0.9, 0.1], (4, 1))
    constant = {"nsmc": (np.array([0, 0, 0, 0]), sure), "klue-sts": (np.array([0.0, 5.0]), np.array([2.0, 2.0]))}
    for name, (labels, answers) in constant.items():
        (tmp_path / name).mkdir()
        task_of(load_recipe(name, "embedded")).draw(labels, answers, tmp_path / name)
        assert (tmp_path / name / "plot.png").stat().st_size > 1000


def test_evaluating_is_not_done_again_for_another_threshold(road: Road) -> None:
    floors = dict.fromkeys(road.recipe.metrics, 0.123)
    other = road.with_recipe(small_recipe(road.recipe.name, gate__floors=floors))
    assert evaluate(other.job, road.validated, road.tokenized, road.trained).ref == road.evaluated.ref


def test_figures_are_logged(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pipeline"):
        evaluate(road.job, road.validated, road.tokenized, road.trained)
    for metric in road.recipe.metrics:
        figure = road.evaluated.manifest.figures["test"][metric]
        interval = f"95% interval {figure['low']:.4f} to {figure['high']:.4f}"
        assert f"{road.recipe.name}: {metric} on the test file {figure['value']:.4f} ({interval})" in caplog.messages


def test_figures_are_numbers(road: Road) -> None:
    for part in ("test", "test_without_train_texts"):
        for figure in road.evaluated.manifest.figures[part].values():
            assert all(math.isfinite(value) for value in figure.values())


def test_model_with_nan_answers_is_not_evaluated(road: Road) -> None:
    rows = len(road.rows["test"])
    with pytest.raises(BrokenModelError, match=f"answers {rows} of {rows} inputs with NaN or infinity; train it"):
        evaluate(road.job, road.validated, road.tokenized, without_numbers(road.trained))
