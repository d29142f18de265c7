"""The tokenize stage: split the training texts into train, validation and gate, and turn all texts into token ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RefusedError
from pipeline.job import Job
from pipeline.models.base_model import find_base
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import TokenizationFigures

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

VERSION = 4
ENCODED_SPLITS = ("train", "validation", "gate", "test")


def tokenize(job: Job, validated: Artifact) -> Artifact:
    """Return the token ids of every row, in `train`, `validation`, `gate` and `test` parquet files, and the tokenizer.

    Columns: `id`, `label`, `input_ids` (truncated to `max_length`, not padded), `length`; for a cross-encoder
    `token_type_ids`; for a bi-encoder `input_ids_pair`. Figures: rows, share of truncated rows, share of [UNK].
    Raises RefusedError if a larger share of a split is [UNK] than `model.unknown_share`.
    """
    recipe = job.recipe
    base = find_base(job.recipe, job.store)
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
    # Here and not in `build`: the bound is not part of the key, and holds for reused tokens too.
    _check_unknown(recipe, made)
    return made


def _check_unknown(recipe: Recipe, tokenized: Artifact) -> None:
    bound = recipe.model.unknown_share
    figures = TokenizationFigures.read(tokenized)
    shares = {name: getattr(figures, name).unknown for name in ENCODED_SPLITS}
    if beyond := [f"{share:.1%} of {name}" for name, share in shares.items() if share > bound]:
        raise RefusedError(
            f"the vocabulary of {recipe.model.base} does not fit the texts: [UNK] stands for {', '.join(beyond)}, and "
            f"model.unknown_share allows {bound:.1%}; choose a base model whose tokenizer is for such texts"
        )
