"""Tokenizers: learnt from texts or loaded from a base model, and what they make of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.errors import BaseModelError
from pipeline.models.base_model import Base

#: Letters that a vocabulary is learnt with, the most frequent ones; a word with another is unknown.
LETTERS = 1_000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


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


def train_wordpiece(texts: Sequence[str], size: int) -> Tokenizer:
    """A BERT WordPiece tokenizer of `size` tokens, learnt from `texts`; from the same texts always the same.

    Of more where the letters of `texts` alone are more (each may begin a word or not), of fewer where there is
    nothing left to join.
    """
    learner = _tokenizer({})
    alphabet, inner = _letters(learner, texts)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        limit_alphabet=LETTERS,
        initial_alphabet=alphabet,
        special_tokens=[*SPECIAL, *inner],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = _numbered(learner.get_vocab())
    tokenizer.decoder = decoders.WordPiece()
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return tokenizer


def split_into_letters(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer whose tokens are letters, to which the words are unknown that are so to `train_wordpiece(texts)`.

    Nothing is learnt for it but which letters there are.
    """
    alphabet, inner = _letters(_tokenizer({}), texts)
    return _numbered([*alphabet, *inner])


def _tokenizer(vocabulary: Mapping[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))  # noqa: S106 - not a password
    # Accents stay: stripping them goes through NFD, which takes Hangul apart.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(strip_accents=False, lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _numbered(tokens: Iterable[str]) -> Tokenizer:
    ordered = [*SPECIAL, *sorted(set(tokens) - set(SPECIAL))]
    return _tokenizer({token: number for number, token in enumerate(ordered)})


def _letters(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """The letters to learn with, and those inside words as WordPiece writes them (`##a`).

    The trainer would number them as they come out of a hash table that is another one in every process. Which of
    two pairs that are as frequent it joins goes by these numbers, so that the same texts gave other vocabularies.
    """
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for letter in word:
            counts[letter] += times
    alphabet = sorted(sorted(counts), key=counts.__getitem__, reverse=True)[:LETTERS]
    inner = {letter for word in words for letter in word[1:]}
    return alphabet, [f"##{letter}" for letter in sorted(inner.intersection(alphabet))]
