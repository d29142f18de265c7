"""The tokenize stage: split the training texts into train, validation and gate, and turn all texts into token ids."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.job import Job
from pipeline.models.base_model import find_base
from pipeline.recipes.schema import SCRATCH
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import TokenizationFigures

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

VERSION = 3
#: Maximum share of unknown tokens without a warning. A base model for the language of the data has a few percent.
MOST_UNKNOWN = 0.5
log = logging.getLogger(__name__)


def tokenize(job: Job, validated: Artifact) -> Artifact:
    """Return the token ids of every row, in `train`, `validation`, `gate` and `test` parquet files, and the tokenizer.

    Columns: `id`, `label`, `input_ids` (truncated to `max_length`, not padded), `length`; for a cross-encoder
    `token_type_ids`; for a bi-encoder `input_ids_pair`. Figures: rows, share of truncated rows, share of [UNK].
    """
    recipe = job.recipe
    base = find_base(job)
    fields = {
        "base": base.identity if base else SCRATCH,
        "vocabulary": recipe.model.scratch.vocabulary if base is None and recipe.model.scratch else None,
        "objective": recipe.model.objective,
        "max_length": recipe.model.max_length,
        "validation_share": recipe.data.validation_share,
        "gate_share": recipe.data.gate_share,
    }

    def build(draft: Path, _: Tracker) -> TokenizationFigures:
        # Imported here so that finished token ids are reused without transformers.
        from pipeline.data.encode_splits import write_encoded

        return write_encoded(recipe, base, validated, draft)

    made = find_or_build(job, "tokenize", VERSION, fields=fields, inputs={"validated": validated}, build=build)
    unknown = TokenizationFigures.read(made).train.unknown
    if base is not None and unknown > MOST_UNKNOWN:
        log.warning(
            "%s: %.0f%% of the tokens of the train rows are unknown to base model %s; "
            "name a base model for the language of the data",
            recipe.name,
            100 * unknown,
            base.name,
        )
    return made
