"""The evaluate stage: metrics of a trained model on the held-out test file, and its predictions on the gate split."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.job import Job
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import EvaluationFigures

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

VERSION = 4
log = logging.getLogger(__name__)


def evaluate(job: Job, validated: Artifact, tokenized: Artifact, trained: Artifact) -> Artifact:
    """Return the predictions and metrics of a trained model.

    Files: `test.parquet` and `gate.parquet` with `id`, `text` (and `text_pair`), `label`, `prediction` (the label's
    number, or the score), for a classification `probability` (of the predicted label), and for test `in_train` (whether
    the row has a near copy in train, by the normalised text of the overlap gate); `plot.png` (confusion matrix or
    scatter plot); `reliability.png` for a classification; `mistakes.json` (the worst mistakes); `behaviour.json` (the
    failed behavioural cases).
    Figures: `test`, `test_without_train_texts` (without rows that have a near copy in train; the thresholds apply to
    these) and `gate`, with the 95% interval of each metric and the number of rows; `slices`; `behaviour` per
    capability; `calibration` of a classification; `similarity` of a bi-encoder, with the metrics by cosine (which the
    service uses) and by Euclidean distance.
    Texts of the data are in the files, never in the figures. Raises ArtifactError if `tokenized` has other rows,
    DataError if every test row has a near copy in train.
    """
    recipe = job.recipe
    fields = recipe.model_dump(include={"kind", "labels", "similar_at", "score_range"})
    fields["behaviour"] = recipe.behaviour.digest
    inputs = {"validated": validated, "tokenized": tokenized, "trained": trained}

    def build(draft: Path, _: Tracker) -> EvaluationFigures:
        # Imported here so that a finished evaluation is reused without torch.
        from pipeline.evaluation.measure import assess

        return assess(recipe, validated, tokenized, trained, draft)

    evaluated = find_or_build(job, "evaluate", VERSION, fields=fields, inputs=inputs, build=build)
    for metric, figure in EvaluationFigures.read(evaluated).test.items():
        values = (figure.value, figure.low, figure.high)
        log.info("%s: %s on the test file %.4f (95%% interval %.4f to %.4f)", recipe.name, metric, *values)
    return evaluated
