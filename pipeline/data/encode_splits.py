"""Write the tokenizer and the token ids of every split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.data.splits import split_rows
from pipeline.models.base_model import Base, check_base
from pipeline.models.row_encoder import Encoder
from pipeline.models.tokenizer import learn_tokenizer, load_tokenizer
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import BaseIdentity, EncodedSplit, TokenizationFigures


def write_encoded(recipe: Recipe, base: Base | None, validated: Artifact, draft: Path) -> TokenizationFigures:
    """Write the tokenizer and the token ids of every split into `draft`; return the figures of `tokenize`."""
    splits = split_rows(recipe, pd.read_parquet(validated.path / "train.parquet"))
    splits["test"] = pd.read_parquet(validated.path / "test.parquet")
    if base is None:
        tokenizer = learn_tokenizer(list(_texts(recipe, splits["train"])), _scratch_vocabulary(recipe))
    else:
        directory = base.fetch()
        tokenizer = load_tokenizer(directory)
        # Check here, before training reserves a GPU.
        check_base(directory, max_length=recipe.model.max_length, tokens=len(tokenizer))
    tokenizer.save_pretrained(draft / "tokenizer")
    encoder = Encoder(tokenizer, recipe.model.max_length, recipe.task.encodings)
    figures: dict[str, EncodedSplit] = {}
    for name, rows in splits.items():
        encoded = encoder.encode(rows)
        encoded.rows.to_parquet(draft / f"{name}.parquet", index=False)
        figures[name] = encoded.figures
    identity = BaseIdentity(base=base.name if base else SCRATCH, revision=base.revision if base else None)
    return TokenizationFigures(base=identity, vocabulary=len(tokenizer), **figures)


def _texts(recipe: Recipe, rows: pd.DataFrame) -> Iterator[str]:
    for column in recipe.text_columns:
        yield from rows[column]


def _scratch_vocabulary(recipe: Recipe) -> int:
    assert recipe.model.scratch is not None  # the recipe's own rule
    return recipe.model.scratch.vocabulary
