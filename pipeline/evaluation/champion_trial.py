"""Champion trial: evaluate the champion on arrivals that are newer than its training data, before training on them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.data.daily_arrivals import Measure
from pipeline.data.input_files import InputFile, read_part
from pipeline.data.reading import finished, has_label, has_text, label_numbers
from pipeline.errors import DataError
from pipeline.evaluation.champions import load_rival
from pipeline.job import Job
from pipeline.recipes.data_schema import ArrivalsSpec
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact

log = logging.getLogger(__name__)


def try_champion(job: Job, champion: Artifact | None, arrivals: Sequence[InputFile]) -> dict[str, Measure]:
    """Return the champion's result on each arrival that it was not trained on, keyed by file name.

    Each result is compared with the champion's results on the test file, label by label. A day with more positive
    reviews than the test file is therefore no drop in quality. Unreadable files are left to the arrival check.
    Raises ArtifactError if the champion cannot be read.
    """
    spec = job.recipe.data.arrivals
    if champion is None or spec is None or not arrivals:
        return {}
    validated = champion.input("validated")
    known = {item["sha256"] for item in validated.figures.get("arrivals", [])}
    new = [file for file in arrivals if file.digest not in known]
    if not new or validated.figures["sample"] != job.recipe.sample:
        return {}
    rival = load_rival(job.recipe, champion)
    test = pd.read_parquet(champion.input("evaluated").path / "test.parquet")
    measures = {}
    for file in new:
        rows = _rows(job.recipe, file)
        if rows is None:
            continue
        measure = _compare(job.recipe, spec, rival.model.recipe.labels, test, rows, rival.answer(rows))
        log.info("%s: the champion on %s: %s (usual: %s)", job.recipe.name, file.name, measure.found, measure.usual)
        measures[file.name] = measure
    return measures


def _rows(recipe: Recipe, file: InputFile) -> pd.DataFrame | None:
    """Return the labelled rows of a file, or None if it has none."""
    try:
        rows = read_part(recipe, file).reading.rows
    except DataError:
        return None
    rows = rows[has_text(recipe, rows) & has_label(recipe, rows)]
    if rows.empty:
        return None
    return finished(recipe, rows, label_numbers(recipe, rows["label"])).reset_index(drop=True)


def _compare(
    recipe: Recipe,
    spec: ArrivalsSpec,
    labels: Sequence[str],
    test: pd.DataFrame,
    rows: pd.DataFrame,
    answers: np.ndarray[Any, Any],
) -> Measure:
    truth = rows["label"].to_numpy()
    if recipe.kind == "regression":
        errors, usual = np.abs(answers - truth), (test["prediction"] - test["label"]).abs().to_numpy()
        chance = float(stats.mannwhitneyu(errors, usual, alternative="greater").pvalue)
        found, expected = f"mean error {errors.mean():.2f}", f"{usual.mean():.2f}"
    else:
        named = np.array(labels)[answers.argmax(axis=1)]
        right = named == np.array(recipe.labels)[truth]
        right_on_test = (test["prediction"] == test["label"]).to_numpy()
        classes = np.array(labels)[test["label"].to_numpy()]
        share, chance = fall(right, np.array(recipe.labels)[truth], right_on_test, classes)
        found, expected = f"{right.mean():.1%} right", f"{share:.1%}"
    level = spec.champion.level_of(chance)
    return Measure(name="champion", found=found, usual=expected, level=level)


def fall(
    right: np.ndarray[Any, Any], classes: np.ndarray[Any, Any], right_then: np.ndarray[Any, Any], then: Any
) -> tuple[float, float]:
    """Return the expected accuracy, and the probability of an accuracy no higher than the observed one.

    `right` is bool (rows,) and `classes` the class of each row; `right_then` and `then` are the same for the test
    file. The normal approximation includes the uncertainty from the size of the test file. Rows whose class is not
    in the test file are ignored.
    """
    expected, variance, count, total = 0.0, 0.0, 0, 0
    for name in np.unique(classes):
        known, here = right_then[then == name], right[classes == name]
        if not len(known):
            continue
        # Smoothed: a share of exactly 0 or 1 would make a single deviation impossible.
        share = (known.sum() + 0.5) / (len(known) + 1)
        expected += share * len(here)
        variance += share * (1 - share) * (len(here) + len(here) ** 2 / len(known))
        count, total = count + int(here.sum()), total + len(here)
    if not total:
        return math.nan, 1.0
    return expected / total, float(stats.norm.cdf((count + 0.5 - expected) / math.sqrt(variance)))
