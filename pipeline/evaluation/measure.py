"""Evaluate a trained model on the test file, the gate split and the behavioural tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.splits import split_rows
from pipeline.errors import ArtifactError, DataError
from pipeline.evaluation.behavioural_tests import run_checklist
from pipeline.evaluation.error_analysis import slice_figures, worst_mistakes
from pipeline.evaluation.metrics import intervals, measure_calibration
from pipeline.evaluation.plots import draw, draw_reliability
from pipeline.models.trained import distances_of, load_trained, to_score
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact


def assess(recipe: Recipe, validated: Artifact, tokenized: Artifact, trained: Artifact, draft: Path) -> dict[str, Any]:
    """Write predictions, plots and mistakes into `draft` and return the figures. Raises as `evaluate`."""
    model = load_trained(recipe, trained)
    rows = {
        "test": pd.read_parquet(validated.path / "test.parquet"),
        "gate": split_rows(recipe, pd.read_parquet(validated.path / "train.parquet"))["gate"],
    }
    answers: dict[str, np.ndarray[Any, Any]] = {}
    raw: dict[str, np.ndarray[Any, Any]] = {}
    for name, table in rows.items():
        encoded = pd.read_parquet(tokenized.path / f"{name}.parquet")
        if not encoded["id"].equals(table["id"]):
            raise ArtifactError(
                f"{tokenized.uri}: {name}.parquet has other rows than validate; run tokenize with --force"
            )
        raw[name] = model.raw_answers(encoded)
        answers[name] = to_score(recipe, model.calibration, raw[name])
        rows[name] = _with_answers(table, answers[name])
        rows[name].to_parquet(draft / f"{name}.parquet", index=False)
    checklist = run_checklist(recipe, model)
    _write_json(draft / "behaviour.json", checklist.failures)
    gate = rows["gate"]["label"].to_numpy()
    measured = _measured(recipe, rows["test"], answers["test"], draft)
    if model.euclidean:
        by_distance = to_score(recipe, model.euclidean, distances_of(raw["test"]))
        found = intervals(recipe, rows["test"]["label"].to_numpy(), by_distance)
        measured["similarity"] = {"cosine": measured["test"], "euclidean": found}
    return measured | {
        "gate": intervals(recipe, gate, answers["gate"]),
        "gate_rows": len(gate),
        "behaviour": checklist.figures,
        # Figures on the shipped sample must not be compared with figures on real data.
        "sample": recipe.sample,
    }


def _measured(recipe: Recipe, test: pd.DataFrame, answers: np.ndarray[Any, Any], draft: Path) -> dict[str, Any]:
    labels, known = test["label"].to_numpy(), test["in_train"].to_numpy(bool)
    if known.all():
        raise DataError(
            f"{recipe.data.test}: the text of every row is also in {recipe.data.train}, so the model cannot be tested "
            "on new texts; use a test file with other texts"
        )
    draw(recipe, labels, answers, draft / "plot.png")
    _write_json(draft / "mistakes.json", worst_mistakes(recipe, test))
    figures: dict[str, Any] = {"test": intervals(recipe, labels, answers), "test_rows": len(labels)}
    # If no test text is in train, both figures are equal; compute them once.
    unseen = intervals(recipe, labels[~known], answers[~known]) if known.any() else figures["test"]
    figures |= {"test_without_train_texts": unseen, "test_without_train_texts_rows": int((~known).sum())}
    figures["slices"] = slice_figures(recipe, test)
    if recipe.kind == "classification":
        figures["calibration"] = measure_calibration(labels, answers)
        draw_reliability(recipe, figures["calibration"], draft / "reliability.png")
    return figures


def _with_answers(table: pd.DataFrame, answers: np.ndarray[Any, Any]) -> pd.DataFrame:
    if answers.ndim == 1:
        return table.assign(prediction=answers)
    return table.assign(prediction=answers.argmax(axis=1), probability=answers.max(axis=1))


def _write_json(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
