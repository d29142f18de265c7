"""Tokenizers: learnt from texts or loaded from a base model, and what they make of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.data.reading import text_columns
from pipeline.errors import BaseModelError
from pipeline.models.base_model import Base, check_base
from pipeline.progress import progress
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.stages.tokenize import split_rows
from pipeline.store.artifacts import Artifact
from pipeline.wordpiece import split_into_letters, train_wordpiece

#: Inputs that are encoded at once.
CHUNK = 8192


def write_encoded(recipe: Recipe, base: Base | None, validated: Artifact, draft: Path) -> dict[str, Any]:
    """Write the tokenizer and every side's token ids into `draft`; figures as `tokenize` says."""
    splits = split_rows(recipe, pd.read_parquet(validated.path / "train.parquet"))
    splits["test"] = pd.read_parquet(validated.path / "test.parquet")
    if base is None:
        tokenizer = learn_tokenizer(list(_texts(recipe, splits["train"])), _scratch_vocabulary(recipe))
    else:
        directory = base.fetch()
        tokenizer = load_tokenizer(directory)
        # Here and not when training starts: no GPU has been taken yet.
        check_base(directory, max_length=recipe.model.max_length, tokens=len(tokenizer))
    tokenizer.save_pretrained(draft / "tokenizer")
    encoder = Encoder(tokenizer, recipe.model.max_length, recipe.model.objective)
    figures: dict[str, Any] = {
        "base": base.identity if base else {"base": SCRATCH, "revision": None},
        "vocabulary": len(tokenizer),
    }
    for name, rows in splits.items():
        encoded = encoder.encode(rows)
        encoded.rows.to_parquet(draft / f"{name}.parquet", index=False)
        figures[name] = encoded.figures
    return figures


def _texts(recipe: Recipe, rows: pd.DataFrame) -> Iterator[str]:
    for column in text_columns(recipe):
        yield from rows[column]


def _scratch_vocabulary(recipe: Recipe) -> int:
    assert recipe.model.scratch is not None  # the recipe's own rule
    return recipe.model.scratch.vocabulary


def learn_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `train_wordpiece` as models have theirs."""
    return as_pretrained(train_wordpiece(texts, size))


def as_pretrained(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """`tokenizer` with BERT's special tokens, as transformers wants it."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    )


class WordCounter:
    """How many words a text has, and how many of them are [UNK] to the tokenizer that will read it."""

    def __init__(self, base: Base | None, texts: Iterable[str]) -> None:
        """`texts` are those that a vocabulary is learnt from where there is no base model."""
        tokenizer = load_tokenizer(base.fetch(weights=False)) if base else as_pretrained(split_into_letters(texts))
        self._tokens: Tokenizer = tokenizer.backend_tokenizer
        self._tokens.no_padding()
        self._tokens.no_truncation()
        self._unknown = tokenizer.unk_token_id

    def count(self, texts: Iterable[str]) -> list[tuple[int, int]]:
        """Words and unknown words of each text."""
        counts = []
        for item in self._tokens.encode_batch(list(texts), add_special_tokens=False):
            words = np.array(item.word_ids, dtype=int)
            counts.append((len(set(words)), len(set(words[np.array(item.ids, dtype=int) == self._unknown]))))
        return counts


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model directory. Raises BaseModelError where it has no fast one."""
    # Without either, transformers makes up a tokenizer to which every word is unknown.
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise BaseModelError(f"{directory} has no tokenizer: a tokenizer.json or a vocab.txt is needed")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True)
    except Exception as error:  # tokenizers raises bare Exception
        raise BaseModelError(f"{directory} has no usable tokenizer: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(f"{directory}: only tokenizers with a tokenizer.json (fast ones) can be served")
    return tokenizer


@dataclass(frozen=True)
class Encoded:
    """Encoded rows and what is to be said of them."""

    rows: pd.DataFrame
    figures: dict[str, float]


class Encoder:
    """Rows to token ids, by one tokenizer at one length."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int, objective: str | None) -> None:
        """`max_length` counts special tokens too."""
        self._tokens: Tokenizer = tokenizer.backend_tokenizer
        self._tokens.no_padding()
        self._tokens.enable_truncation(max_length)
        self._unknown = tokenizer.unk_token_id
        self._objective = objective

    def encode(self, rows: pd.DataFrame) -> Encoded:
        """Encode `text` (and `text_pair`) of `rows`; the other columns but `id` and `label` are dropped."""
        table = rows[[name for name in ("id", "label") if name in rows]].reset_index(drop=True)
        first = rows["text"].tolist()
        if self._objective == "cross-encoder":
            batches = {"input_ids": self._encode(list(zip(first, rows["text_pair"], strict=True)))}
            table["token_type_ids"] = pd.Series([np.array(item.type_ids, np.int32) for item in batches["input_ids"]])
        else:
            batches = {"input_ids": self._encode(first)}
        if self._objective == "bi-encoder":
            batches["input_ids_pair"] = self._encode(rows["text_pair"].tolist())
        for name, encodings in batches.items():
            table[name] = pd.Series([np.array(item.ids, np.int32) for item in encodings])
        table["length"] = np.max([[len(ids) for ids in table[name]] for name in batches], axis=0)
        return Encoded(table, self._figures(batches))

    def _encode(self, inputs: list[Any]) -> list[Any]:
        encodings = []
        with progress("encoding", len(inputs)) as advance:
            for start in range(0, len(inputs), CHUNK):
                encodings += self._tokens.encode_batch(inputs[start : start + CHUNK])
                advance(len(encodings) - start)
        return encodings

    def _figures(self, batches: dict[str, Any]) -> dict[str, float]:
        encodings = [item for batch in batches.values() for item in batch]
        ids = np.concatenate([item.ids for item in encodings])
        special = np.concatenate([item.special_tokens_mask for item in encodings])
        words = ids[special == 0]
        return {
            "rows": len(batches["input_ids"]),
            "truncated": float(np.mean([bool(item.overflowing) for item in encodings])),
            "unknown": float((words == self._unknown).mean()) if len(words) else 0.0,
            "mean_length": float(np.mean([len(item.ids) for item in encodings])),
        }
