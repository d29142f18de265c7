"""The validate stage (data gate): files that break a critical rule stop the run here, before it uses a GPU."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.arrival_checks import Measure
from pipeline.data.input_files import InputFiles, find_files
from pipeline.data.suite_files import suite_digests
from pipeline.errors import RejectedDataError
from pipeline.evaluation.champion_trial import try_champion
from pipeline.job import Job
from pipeline.models.base_model import Base, find_base
from pipeline.recipes.data_schema import DRIFTS
from pipeline.recipes.files import recipe_directories
from pipeline.recipes.kinds.numerals import numeral, spellings
from pipeline.recipes.schema import Recipe
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.acceptances import Acceptance, find_acceptances
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import RejectedDataFigures, ValidationFigures
from pipeline.store.gone_arrivals import GONE, gone_sentence
from pipeline.store.manifest import make_key

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

VERSION = 4
REJECTED = "rejected-data"
log = logging.getLogger(__name__)


def validate(job: Job, directory: Path, champion: Artifact | None = None) -> Artifact:
    """Check the published files in `directory` and the arrivals before the job's date; return them as an artifact.

    Files: `train.parquet` (arrivals included) and `test.parquet` (columns of `data.read_split`; test also `in_train`
    bool: its exact text or pair is in train), `quarantine.tsv`, `overlap.tsv`, `validation.json`, and
    `docs/index.html` with the data docs. Figures: `train_rows`, `test_rows`, `test_in_train`, `warnings` (sentences),
    `sample`, `cutoff` (date of the newest arrival in train, or null), `arrivals` (in train), `left_out` (sentences),
    `quarantined` (rows), `overlap` (rows by kind). `champion` is tried on arrivals that it was not trained on. An
    unusual arrival that a person accepted (`pipeline.store.acceptances`) is used. Arrivals that the champion was
    trained on and that are gone are among the warnings.
    Raises DataError with file, rows and rule if a file cannot be used. If rules rejected the data, the error is a
    RejectedDataError, and the data docs are an artifact of kind `rejected-data`. Unchanged files are not checked again:
    the error is that of the first run that they stopped. If there are arrivals, also raises the errors of
    `pipeline.models.base_model.find_base` and its `fetch`.
    """
    inputs = find_files(job.recipe, directory, job.cutoff, recipe_directories(job.settings.recipes))
    for name in inputs.unfinished:
        log.warning("%s: %s is still being written; this run skips it", job.recipe.name, name)
    days = {str(file.date): file.digest for file in inputs.arrivals}
    accepted = find_acceptances(job.store, job.recipe.name, days)
    falls = try_champion(job, champion, inputs.arrivals, accepted)
    base = find_base(job.recipe, job.store) if inputs.arrivals else None
    gone = _gone_days(job, champion, inputs)
    fields = _fields(job, inputs, falls, base) | _arrival_fields(job.recipe, inputs, accepted)
    if gone:
        # The warning about them is part of the result.
        fields[GONE] = gone
    key = make_key(REJECTED, VERSION, fields, {})
    if not job.force and (rejected := job.store.find(REJECTED, job.recipe.name, key, {})):
        raise _rejection(rejected)

    def build(draft: Path, _: Tracker) -> ValidationFigures:
        # Imported here so that a finished validation is reused without Great Expectations.
        from pipeline.data.data_gate import check_data

        figures, problems = check_data(job, inputs, falls, accepted, base, draft)
        if figures is None:
            raise _rejection(_publish(job, key, fields, draft, problems))
        if gone:
            figures = figures.model_copy(update={"warnings": (gone_sentence(gone), *figures.warnings)})
        return figures

    made = find_or_build(job, "validate", VERSION, fields=fields, inputs={}, build=build)
    for warning in ValidationFigures.read(made).warnings:
        log.warning("%s: %s", job.recipe.name, warning)
    return made


def _fields(job: Job, inputs: InputFiles, falls: Mapping[str, Measure], base: Base | None) -> dict[str, Any]:
    recipe = job.recipe
    return {
        "files": {
            split if len(files) == 1 else file.name: file.digest
            for split, files in inputs.published.items()
            for file in files
        },
        "arrivals": {file.name: file.digest for file in inputs.arrivals},
        # Its tokenizer decides which words of the arrivals are unknown.
        "base": base.identity if base else None,
        # A critical fall of the champion's metric excludes an arrival. Its other results are only reported.
        "doubted": sorted(name for name, fall in falls.items() if fall.level == "critical"),
        # The later split of the training rows does not matter here; for `effect` see `_arrival_fields`.
        "data": recipe.data.model_dump(
            mode="json",
            exclude={"validation_share": True, "gate_share": True, "arrivals": {name: {"effect"} for name in DRIFTS}},
        ),
        "kind": recipe.kind,
        "labels": _label_fields(recipe),
        "score_range": recipe.score_range,
        "sample": recipe.sample,
        "suite": suite_digests(job.settings, recipe),
    }


def _label_fields(recipe: Recipe) -> list[str]:
    # A number used to mean a position among names such as 0.5 or "1 star", which gave wrong labels: such files are read
    # again.
    decimal = any(numeral(name) is not None for name in recipe.labels) and not any(map(str.isdigit, recipe.labels))
    named = recipe.labels and recipe.task.suite_parameters(recipe).get("labels") == list(recipe.labels)
    numbers = [spelling for name in recipe.labels for spelling in spellings(name)] if decimal else []
    return [*recipe.labels, *numbers, *(["no numbers"] if named else [])]


def _arrival_fields(recipe: Recipe, inputs: InputFiles, accepted: Mapping[str, Acceptance]) -> dict[str, Any]:
    """Return the fields that matter only to arrivals.

    Without arrivals there are none, so that the key is the same as in versions that did not read arrivals.
    """
    if recipe.data.arrivals is None or not inputs.arrivals:
        return {}
    effects = {name: getattr(recipe.data.arrivals, name).effect for name in DRIFTS}
    digests = sorted({file.digest for file in inputs.arrivals if str(file.date) in accepted})
    return {"effects": effects} | ({"accepted": digests} if digests else {})


def _gone_days(job: Job, champion: Artifact | None, inputs: InputFiles) -> list[str]:
    """Return the dates of arrivals that the champion was trained on and that have no file any more, sorted."""
    if champion is None or job.recipe.data.arrivals is None or champion.input_ref("validated") is None:
        return []
    known = ValidationFigures.read(champion.input("validated"))
    if known.sample != job.recipe.sample:
        return []
    there = {str(file.date) for file in inputs.arrivals} | {Path(name).stem for name in inputs.unfinished}
    dates = {str(item.date) for item in known.arrivals if item.date < job.cutoff}
    return sorted(dates - there)


def _publish(job: Job, key: str, fields: Mapping[str, Any], draft: Path, sentences: list[str]) -> Artifact:
    """Publish the findings, for the operator to read."""
    return job.store.publish(
        draft,
        REJECTED,
        job.recipe.name,
        key,
        run=job.run,
        inputs={},
        fields=dict(fields),
        figures=RejectedDataFigures(reasons=tuple(sentences)).document(),
    )


def _rejection(rejected: Artifact) -> RejectedDataError:
    where = f"All rules and the failing rows: {rejected.uri}/docs/index.html"
    reasons = RejectedDataFigures.read(rejected).reasons
    return RejectedDataError("\n".join([*reasons, where]), rejected.ref, rejected.manifest.run)
