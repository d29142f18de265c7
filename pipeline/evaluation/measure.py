"""Evaluate a trained model on the test file, the gate split and the behavioural tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data.overlap import near_copies
from pipeline.data.splits import split_rows
from pipeline.errors import ArtifactError, DataError
from pipeline.evaluation.behavioural_tests import run_checklist
from pipeline.evaluation.error_analysis import slice_figures, worst_mistakes
from pipeline.metrics.arrays import Numbers
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import EvaluationFigures
from pipeline.tasks.registry import task_of
from pipeline.tasks.task import Task
from pipeline.tasks.trained import load_trained


def assess(
    recipe: Recipe, validated: Artifact, tokenized: Artifact, trained: Artifact, draft: Path
) -> EvaluationFigures:
    """Write predictions, plots and mistakes into `draft` and return the figures. Raises as `evaluate`."""
    model, task = load_trained(recipe, trained), task_of(recipe)
    test, train = (pd.read_parquet(validated.path / f"{name}.parquet") for name in ("test", "train"))
    rows = {
        "test": test.assign(in_train=near_copies(test, train, recipe.text_columns)),
        "gate": split_rows(recipe, train)["gate"],
    }
    answers: dict[str, Numbers] = {}
    raw: dict[str, Numbers] = {}
    for name, table in rows.items():
        encoded = pd.read_parquet(tokenized.path / f"{name}.parquet")
        if not encoded["id"].equals(table["id"]):
            raise ArtifactError(
                f"{tokenized.uri}: {name}.parquet has other rows than validate; run tokenize with --force"
            )
        raw[name] = model.raw_answers(encoded)
        answers[name] = task.scale(raw[name], model.calibration)
        rows[name] = table.assign(**task.columns(answers[name]))
        rows[name].to_parquet(draft / f"{name}.parquet", index=False)
    checklist = run_checklist(recipe, model)
    _write_json(draft / "behaviour.json", checklist.failures)
    gate = rows["gate"]["label"].to_numpy()
    measured = _measured(task, rows["test"], answers["test"], draft)
    measured |= task.compare_methods(rows["test"]["label"].to_numpy(), raw["test"], measured["test"], model.euclidean)
    return EvaluationFigures(
        **measured,
        gate=task.intervals(gate, answers["gate"]),
        gate_rows=len(gate),
        behaviour=checklist.figures,
        sample=recipe.sample,
    )


def _measured(task: Task, test: pd.DataFrame, answers: Numbers, draft: Path) -> dict[str, Any]:
    recipe = task.recipe
    labels, known = test["label"].to_numpy(), test["in_train"].to_numpy(bool)
    if known.all():
        raise DataError(
            f"{recipe.data.test or 'test rows'}: the text of every row, or a near copy of it, is also in "
            f"{recipe.data.train}, so the model cannot be tested on new texts; use a test file with other texts"
        )
    task.draw(labels, answers, draft)
    _write_json(draft / "mistakes.json", worst_mistakes(recipe, test))
    figures: dict[str, Any] = {"test": task.intervals(labels, answers), "test_rows": len(labels)}
    # If no test row has a near copy in train, both figures are equal; compute them once.
    unseen = task.intervals(labels[~known], answers[~known]) if known.any() else figures["test"]
    figures |= {"test_without_train_texts": unseen, "test_without_train_texts_rows": int((~known).sum())}
    return figures | {"slices": slice_figures(recipe, test)} | task.further_figures(labels, answers)


def _write_json(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
