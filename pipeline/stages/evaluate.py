"""Evaluate: what a trained model is worth on the untouched test file, and what it says on the gate side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.job import Job
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

VERSION = 3


def evaluate(job: Job, validated: Artifact, tokenized: Artifact, trained: Artifact) -> Artifact:
    """Predictions and figures of a trained model.

    `test.parquet` and `gate.parquet`: `id`, `text` (and `text_pair`), `label`, `prediction` (the label number, or
    the score); for a classification `probability`, that of the label foreseen; test also `in_train`.
    `plot.png`: confusion matrix or scatter; `reliability.png` for a classification; `mistakes.json`: the worst;
    `behaviour.json`: the behavioural cases that failed.
    Figures: `test`, `test_without_train_texts` (without the rows whose text is in train) and `gate`, each metric
    with its 95% interval, and the number of rows; `slices`; `behaviour`, a capability each; `calibration` of a
    classification; `similarity` of a bi-encoder: the metrics by cosine, which is what answers, and by Euclidean
    distance. Texts of the data are in the files and never in the figures. Raises ArtifactError where
    `tokenized` is of other rows, DataError where every test text is in train.
    """
    recipe = job.recipe
    fields = recipe.model_dump(include={"kind", "labels", "similar_at", "score_range"})
    fields["behaviour"] = recipe.behaviour.digest
    inputs = {"validated": validated, "tokenized": tokenized, "trained": trained}

    def build(draft: Path, _: Tracker) -> dict[str, Any]:
        # Here and not at the top: a finished evaluation is found again without torch.
        from pipeline.evaluation.measure import assess

        return assess(recipe, validated, tokenized, trained, draft)

    return find_or_build(job, "evaluate", VERSION, fields=fields, inputs=inputs, build=build)
