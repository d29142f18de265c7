"""Champion trial: evaluate the champion on arrivals that are newer than its training data, before training on them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import cache

import pandas as pd

from pipeline.data.arrival_checks import Measure, milder
from pipeline.data.input_files import InputFile, read_part
from pipeline.data.reading import finished, has_label, has_text, label_numbers
from pipeline.errors import DataError
from pipeline.evaluation.champions import is_other_kind, load_rival
from pipeline.job import Job
from pipeline.metrics.arrays import Numbers
from pipeline.recipes.data_schema import ArrivalsSpec
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import ValidationFigures
from pipeline.tasks.registry import task_of

log = logging.getLogger(__name__)


def try_champion(
    job: Job, champion: Artifact | None, arrivals: Sequence[InputFile], accepted: Collection[str] = ()
) -> dict[str, Measure]:
    """Return the champion's result on each arrival that it was not trained on, keyed by file name.

    Each result is compared with the champion's results on the test file, label by label. A day with more positive
    reviews than the test file is therefore no drop in quality. `accepted` are the days (YYYY-MM-DD) that a person
    accepted. A day on which the champion does as well as on the last accepted day before it is no drop in quality
    either. Unreadable files are left to the arrival check. A champion of another kind of task is not tried, because a
    person must approve its successor. Raises ArtifactError if the champion cannot be read.
    """
    spec = job.recipe.data.arrivals
    if champion is None or spec is None or not arrivals:
        return {}
    validated = ValidationFigures.read(champion.input("validated"))
    known = {item.sha256 for item in validated.arrivals}
    new = [file for file in arrivals if file.digest not in known]
    if not new or validated.sample != job.recipe.sample or is_other_kind(job.recipe, champion):
        return {}
    rival = load_rival(job.recipe, champion)
    labels = job.recipe.names_now(rival.model.recipe.labels)
    test = pd.read_parquet(champion.input("evaluated").path / "test.parquet")

    @cache
    def tried_on(file: InputFile) -> pd.DataFrame | None:
        rows = _rows(job.recipe, file)
        return None if rows is None else _as_test(job.recipe, labels, rows, rival.answer(rows))

    measures = {}
    for file in new:
        rows = _rows(job.recipe, file)
        if rows is None:
            continue
        answers = rival.answer(rows)
        measure = _compare(job.recipe, spec, labels, test, rows, answers)
        usual = tried_on(last) if (last := _last_accepted(file, arrivals, accepted)) else None
        if usual is not None:
            measure = milder(measure, _compare(job.recipe, spec, labels, usual, rows, answers))
        log.info("%s: the champion on %s: %s (usual: %s)", job.recipe.name, file.name, measure.found, measure.usual)
        measures[file.name] = measure
    return measures


def _rows(recipe: Recipe, file: InputFile) -> pd.DataFrame | None:
    """Return the rows of a file that have all texts and a valid label, or None if there are none."""
    try:
        rows = read_part(recipe, file).reading.rows
    except DataError:
        return None
    rows = rows[has_text(recipe, rows) & has_label(recipe, rows)]
    if rows.empty:
        return None
    return finished(recipe, rows, label_numbers(recipe, rows["label"])).reset_index(drop=True)


def _last_accepted(file: InputFile, arrivals: Sequence[InputFile], accepted: Collection[str]) -> InputFile | None:
    earlier = arrivals[: arrivals.index(file)]
    return next((item for item in reversed(earlier) if str(item.date) in accepted), None)


def _as_test(recipe: Recipe, labels: Sequence[str], rows: pd.DataFrame, answers: Numbers) -> pd.DataFrame | None:
    """Return rows and predictions in the form of `test.parquet`; None if the champion knows none of the labels."""
    if answers.ndim == 1:
        return rows.assign(prediction=answers)
    numbers = {name: number for number, name in enumerate(labels)}
    named = rows["label"].map(lambda number: numbers.get(recipe.labels[number], -1))
    table = rows.assign(label=named, prediction=answers.argmax(axis=1))[named >= 0]
    return None if table.empty else table


def _compare(
    recipe: Recipe,
    spec: ArrivalsSpec,
    labels: Sequence[str],
    test: pd.DataFrame,
    rows: pd.DataFrame,
    answers: Numbers,
) -> Measure:
    shift = task_of(recipe).quality_shift(rows, answers, labels, test)
    return Measure.of(shift, spec.champion)
