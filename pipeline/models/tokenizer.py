"""Tokenizers: trained on texts or loaded from a base model, and their count of unknown words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.errors import BaseModelError
from pipeline.models.base_model import Base
from pipeline.texts import composed

#: Size of the alphabet of a trained vocabulary, the most frequent letters. A word with another letter is unknown.
LETTERS = 1_000
#: Marks the pieces of SentencePiece that start a word. WordPiece marks the others, with ##.
WORD_START = "▁"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def learn_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Return the tokenizer of `train_wordpiece` as a transformers tokenizer."""
    return as_pretrained(train_wordpiece(texts, size))


def as_pretrained(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return `tokenizer` as a transformers tokenizer with BERT's special tokens."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    )


class WordCounter:
    """Counter of words and of words that are [UNK] to the tokenizer of the model."""

    def __init__(self, base: Base | None, texts: Iterable[str]) -> None:
        """`texts` are the training texts of the vocabulary if there is no base model."""
        tokenizer = load_tokenizer(base.fetch(weights=False)) if base else as_pretrained(split_into_letters(texts))
        self._tokens: Tokenizer = tokenizer.backend_tokenizer
        self._tokens.no_padding()
        self._tokens.no_truncation()
        self._unknown = tokenizer.unk_token_id

    def count(self, texts: Iterable[str]) -> list[tuple[int, int]]:
        """Return the number of words and of unknown words of each text."""
        counts = []
        for item in self._tokens.encode_batch(list(map(composed, texts)), add_special_tokens=False):
            words = np.array(item.word_ids, dtype=int)
            counts.append((len(set(words)), len(set(words[np.array(item.ids, dtype=int) == self._unknown]))))
        return counts


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model directory. Raises BaseModelError if it has no fast tokenizer."""
    # Without either file, transformers creates an empty tokenizer to which every word is unknown.
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise BaseModelError(f"{directory} has no tokenizer; add its tokenizer.json or vocab.txt")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True)
    except Exception as error:  # tokenizers raises bare Exception
        raise BaseModelError(
            f"{directory}: its tokenizer cannot be loaded ({error}); name another base model"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(
            f"{directory}: its tokenizer has no fast version, which the service needs; name a base model that has a "
            "tokenizer.json"
        )
    # transformers takes every vocab.txt for WordPiece. With SentencePiece's pieces nearly every word would be unknown.
    vocabulary = () if (directory / "tokenizer.json").is_file() else tokenizer.get_vocab()
    if sum(token.startswith(WORD_START) for token in vocabulary) > len(vocabulary) / 10:
        raise BaseModelError(
            f"{directory}: vocab.txt lists the pieces of a SentencePiece model ({WORD_START}...) and not those of "
            "WordPiece, as KoBERT's does; name a base model that has a tokenizer.json"
        )
    return tokenizer


def train_wordpiece(texts: Sequence[str], size: int) -> Tokenizer:
    """Train a BERT WordPiece tokenizer of `size` tokens on `texts`; the result is deterministic.

    It is larger if the alphabet alone exceeds `size` (each letter with and without ##), and smaller if no merges are
    left.
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
    """Return a tokenizer of single letters that has the same unknown words as `train_wordpiece(texts)`.

    It needs only the alphabet, so it is much faster than training a vocabulary.
    """
    alphabet, inner = _letters(_tokenizer({}), texts)
    return _numbered([*alphabet, *inner])


def _tokenizer(vocabulary: Mapping[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))  # noqa: S106 - not a password
    # Keep accents: stripping them uses NFD, which decomposes Hangul.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(strip_accents=False, lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _numbered(tokens: Iterable[str]) -> Tokenizer:
    ordered = [*SPECIAL, *sorted(set(tokens) - set(SPECIAL))]
    return _tokenizer({token: number for number, token in enumerate(ordered)})


def _letters(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the alphabet, and the letters inside words as WordPiece writes them (`##a`).

    Passing both to the trainer makes it deterministic. Otherwise it would number the letters in the order of a hash
    table, which differs between processes. The numbers break ties between equally frequent merges, so the same texts
    would give different vocabularies.
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
