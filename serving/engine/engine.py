"""Engine: one release in memory, computed by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline.errors import ArtifactError, BadInputError
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.kinds.task_kind import AnswerForm, Method
from pipeline.settings import Settings
from pipeline.store.releases import Card
from pipeline.texts import composed
from serving.engine.observer import Observer
from serving.engine.session import Device, Floats, open_variant

#: Largest padded sub-batch, in tokens: small enough for a core's cache, large enough to use a GPU fully.
TOKEN_BUDGET: dict[Device, int] = {"cpu": 256, "cuda": 16_384}
#: Maximum share of padding. On a core, computing this much padding in a small model costs about one more call.
PADDING = 1 / 16


@dataclass(frozen=True)
class Timing:
    """Seconds that the batch of a request took: waiting for a thread, tokenizing, and computing."""

    queue: float = 0.0
    tokenize: float = 0.0
    infer: float = 0.0


@dataclass(frozen=True)
class Answer:
    """`values` is (inputs, labels) probabilities, (inputs, 1) scores or (inputs, hidden) vectors.

    `tokens` (inputs,) counts the tokens read, without special ones; `unknown` (inputs,) counts those that are [UNK].
    """

    values: Floats
    truncated: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    unknown: NDArray[np.int64]
    timing: Timing = Timing()

    @property
    def unknown_share(self) -> NDArray[np.float64]:
        """Share of unknown tokens of each input, (inputs,); 0 for an input without tokens."""
        return self.unknown / np.maximum(self.tokens, 1)

    def part(self, rows: slice) -> Answer:
        """Return the answer to the inputs in `rows`."""
        return Answer(self.values[rows], self.truncated[rows], self.tokens[rows], self.unknown[rows], self.timing)


@dataclass(frozen=True)
class EngineOptions:
    """Options of an engine: `threads` 0 is one per core, `device` None is a GPU if one works, else the CPU.

    `batch_tokens` is the largest padded sub-batch in tokens; 0 is the device's default.
    """

    threads: int = 0
    device: Device | None = None
    batch_tokens: int = 0

    @classmethod
    def from_settings(cls, settings: Settings, *, threads: int | None = None) -> EngineOptions:
        """Return the options from the settings; `threads` replaces theirs, if several workers share the cores."""
        return cls(
            threads=settings.threads if threads is None else threads,
            device=None if settings.device == "auto" else settings.device,
            batch_tokens=settings.batch_tokens,
        )


class Engine:
    """One release: its card, its tokenizer and one ONNX Runtime session that all threads share."""

    def __init__(
        self,
        directory: Path,
        options: EngineOptions | None = None,
        *,
        variant: int = 0,
    ) -> None:
        """Load the release in `directory`: file number `variant` of those for the device. No observer is set.

        Raises ArtifactError if card, tokenizer or model cannot be loaded, or the requested device cannot be used.
        """
        options = options or EngineOptions()
        try:
            self.card = Card.parse((directory / "card.json").read_bytes(), str(directory / "card.json"))
            self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtifactError(f"{directory}: the release cannot be loaded ({error}); export it again") from error
        self._observer = Observer()
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.card.max_length)
        self._pad = next((i for t in ("[PAD]", "<pad>") if (i := self._tokenizer.token_to_id(t)) is not None), 0)
        self._unknown = next((i for t in ("[UNK]", "<unk>") if (i := self._tokenizer.token_to_id(t)) is not None), -1)
        self.device, self._running = open_variant(directory, self.card, options.device, variant)
        self.variant = self.card.variants[self.device][variant]
        self.rates: dict[str, float] = {}
        "Golden sentences per second of each file for the device, if they were compared."
        # If all tokens have the same type, the export folds the type into the weights.
        self._with_types = any(item.name == "token_type_ids" for item in self._running.session.get_inputs())
        self._budget = options.batch_tokens or TOKEN_BUDGET[self.device]
        self._pool = ThreadPoolExecutor(options.threads or os.cpu_count() or 1, thread_name_prefix="engine")

    def observed_by(self, observer: Observer) -> None:
        """Report all further work to `observer`."""
        self._observer = observer

    @property
    def provider(self) -> str:
        """The execution provider that ONNX Runtime uses."""
        return str(self._running.session.get_providers()[0])

    @property
    def methods(self) -> tuple[Method, ...]:
        """Methods to compare pairs, the default first; empty if the release compares none."""
        lines = self._lines
        return tuple(method for method in self.card.task.methods if method not in lines or lines[method])

    @property
    def _lines(self) -> Mapping[Method, ScoreLine | None]:
        """The fitted line to scores of each method that compares vectors."""
        return {"cosine": self.card.calibration, "euclidean": self.card.euclidean}

    @property
    def has_vectors(self) -> bool:
        """Whether it can embed single texts."""
        return self.card.task.has_vectors

    def classify(self, texts: Sequence[str]) -> Floats:
        """Return class probabilities, (texts, labels). Raises ValueError if the release is not a classifier."""
        return self.answer([(text,) for text in texts], kind="classification").values

    def score(self, inputs: Sequence[tuple[str, ...]]) -> Floats:
        """Return scores of texts or pairs, (inputs,), in the recipe's range.

        Raises ValueError if the release is no regression.
        """
        return self.answer(inputs, kind="regression").values[:, 0]

    def embed(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors, (texts, hidden). Raises ValueError if the release is not a bi-encoder."""
        return self.vectors(texts).values

    def vectors(self, texts: Sequence[str]) -> Answer:
        """Return unit vectors, (texts, hidden), with the token counts of each text.

        Raises ValueError if the release is not a bi-encoder, and BadInputError for the first invalid text.
        """
        if not self.has_vectors:
            raise ValueError(f"{self.card.id} has no sentence vectors: its objective is {self.card.objective}")
        for index, text in enumerate(texts):
            if problem := _problem((text,), 1):
                raise BadInputError(problem, index)
        return self._run([(text,) for text in texts])

    def answer(
        self, inputs: Sequence[tuple[str, ...]], kind: str | None = None, method: Method | None = None
    ) -> Answer:
        """Return answers in the order of `inputs` (texts or pairs), with the token counts of each.

        `method` is one of `methods`, by default the first. Raises ValueError if the release is not of `kind` or does
        not have `method`, and BadInputError for the first invalid input.
        """
        card = self.card
        if kind not in (None, card.kind):
            raise ValueError(f"{card.id} is a {card.kind} release, not {kind}")
        if method is not None and method not in self.methods:
            raise ValueError(f"{card.id} has no method {method}; it has: {', '.join(self.methods) or 'none'}")
        self.check(inputs)
        if self.has_vectors:
            return self._compare(inputs, method or card.task.methods[0])
        raw = self._run(inputs)
        return replace(raw, values=FINISHES[card.task.answers](raw.values, *card.task.answer_range(card)))

    def check(self, inputs: Sequence[tuple[str, ...]]) -> None:
        """Raise BadInputError for the first of `inputs` that is not a valid text (or pair of texts)."""
        for index, item in enumerate(inputs):
            if problem := self.problem(item):
                raise BadInputError(problem, index)

    def problem(self, item: tuple[str, ...]) -> str | None:
        """Return why `item` is invalid, or None if it is valid."""
        return _problem(item, len(self.card.task.texts))

    def _compare(self, pairs: Sequence[tuple[str, ...]], method: Method) -> Answer:
        both = self._run([(pair[side],) for side in (0, 1) for pair in pairs])
        line = self._lines[method]
        if line is None:
            raise ArtifactError(
                f"{self.card.id}: card.json has no calibration, which a bi-encoder needs; export the release again"
            )
        left, right = both.values[: len(pairs)], both.values[len(pairs) :]
        measure = np.einsum("ij,ij->i", left, right) if method == "cosine" else np.linalg.norm(left - right, axis=1)
        scores = (line.slope * measure + line.intercept).astype(np.float32)[:, None]
        truncated, tokens, unknown = (
            side.reshape(2, len(pairs)).sum(axis=0) for side in (both.truncated, both.tokens, both.unknown)
        )
        scores = _clip(scores, *self.card.task.answer_range(self.card))
        return Answer(scores, truncated > 0, tokens, unknown, both.timing)

    def _run(self, inputs: Sequence[tuple[str, ...]]) -> Answer:
        """Return the model's raw output, rows in the order of `inputs`."""
        began = perf_counter()
        prepared = [tuple(map(composed, item)) for item in inputs]
        plain = [item[0] if len(item) == 1 else item for item in prepared]
        # The fast variant omits offsets, which are not needed.
        encodings = self._tokenizer.encode_batch_fast(plain)
        tokenized = perf_counter()
        self._observer.tokenized(tokenized - began)
        truncated = np.array([bool(item.overflowing) for item in encodings], dtype=np.bool_)
        lengths = np.array([len(item) for item in encodings], dtype=np.int64)
        batches = list(sub_batches(lengths, self._budget))
        marks = self._tokenizer.num_special_tokens_to_add(len(inputs) > 0 and len(inputs[0]) == 2)
        unknown = np.array([item.ids.count(self._unknown) for item in encodings], dtype=np.int64)
        if not batches:
            return Answer(np.zeros((0, self._width), dtype=np.float32), truncated, lengths, unknown)
        work = [[encodings[row] for row in rows] for rows in batches]
        # One sub-batch stays on this thread: handing it over costs more time than it saves.
        outputs = [self._forward(work[0])] if len(work) == 1 else list(self._pool.map(self._forward, work))
        values = np.empty((len(inputs), outputs[0].shape[1]), dtype=np.float32)
        values[np.concatenate(batches)] = np.concatenate(outputs)
        timing = Timing(tokenize=tokenized - began, infer=perf_counter() - tokenized)
        return Answer(values, truncated, lengths - marks, unknown, timing)

    def _forward(self, batch: Sequence[Encoding]) -> Floats:
        lengths = np.array([len(item) for item in batch])
        real = np.arange(lengths.max()) < lengths[:, None]
        feed = {
            "input_ids": _spread((item.ids for item in batch), real, self._pad),
            "attention_mask": real.astype(np.int32),
        }
        if self._with_types:
            feed["token_type_ids"] = _spread((item.type_ids for item in batch), real, 0)
        began = perf_counter()
        output = self._running.run(feed)
        took = perf_counter() - began
        tokens = int(lengths.sum())
        padding = 0 if self.variant.packed else self._running.places(*real.shape) - tokens
        self._observer.computed(len(batch), tokens, padding, took)
        return output

    @property
    def _width(self) -> int:
        """Number of output columns; if the model's output is dynamic, one per label (at least 1)."""
        width = self._running.session.get_outputs()[0].shape[-1]
        return width if isinstance(width, int) else max(1, len(self.card.labels))


def sub_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield groups of rows of similar length.

    A group has at most `budget` tokens, or one row; at most the share `PADDING` of the tokens is padding.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order].tolist()
    start = padding = 0
    for end in range(1, len(ordered) + 1):
        if end < len(ordered):
            # Sorted: the row at `end` would be the longest of its group.
            padding += (ordered[end] - ordered[end - 1]) * (end - start)
            if ordered[end] * (end + 1 - start) <= budget and padding <= PADDING * budget:
                continue
        yield order[start:end]
        start, padding = end, 0


def _spread(rows: Iterable[list[int]], real: NDArray[np.bool_], filler: int) -> NDArray[np.int32]:
    """Return an array (rows, length) with the values of `rows` where `real` is true, and `filler` elsewhere."""
    # One assignment for all rows: one per row would dominate the cost.
    spread = np.full(real.shape, filler, dtype=np.int32)
    spread[real] = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
    return spread


def _problem(item: tuple[str, ...], width: int) -> str | None:
    if not isinstance(item, tuple) or len(item) != width:
        return f"not {'a pair of texts' if width == 2 else 'one text'}"
    for text in item:
        if not isinstance(text, str):
            return f"a text is expected, not {type(text).__name__}"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"invalid text: half of a character (a lone surrogate) at index {error.start}"
    return None


def _softmax(logits: Floats, *_: float) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def _clip(scores: Floats, low: float, high: float) -> Floats:
    return np.asarray(np.clip(scores, low, high), dtype=np.float32)


#: Functions from a model's raw output, and the range of an answer, to answers of each form.
FINISHES: Mapping[AnswerForm, Callable[..., Floats]] = {"probabilities": _softmax, "score": _clip}
