"""WordPiece vocabularies learnt from texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

#: Letters that a vocabulary is learnt with, the most frequent ones; a word with another is unknown.
LETTERS = 1_000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


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
