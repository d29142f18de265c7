"""An engine: one release in memory, answering texts through ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline.errors import ArtifactError, BadInputError
from pipeline.settings import Settings
from pipeline.store.releases import Card, ScoreLine
from serving.engine.observer import Observer
from serving.engine.session import Device, Floats, open_variant
from serving.schemas import Method

#: Largest padded sub-batch, in tokens. On a core, small ones keep the activations in its cache; a GPU wants to be full.
TOKEN_BUDGET: dict[Device, int] = {"cpu": 256, "cuda": 16_384}
#: Share of it that may be padding: so much costs a small model on a core about as much as another call does.
PADDING = 1 / 16


@dataclass(frozen=True)
class Answer:
    """`values` is (inputs, labels) probabilities, (inputs, 1) scores or (inputs, hidden) vectors.

    `tokens` are those of each input that were read, special ones aside, and `unknown` how many of them the model does
    not know.
    """

    values: Floats
    truncated: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    unknown: NDArray[np.int64]

    @property
    def unknown_share(self) -> NDArray[np.float64]:
        """Share of each input's tokens that the model does not know, (inputs,); 0 where there are none."""
        return self.unknown / np.maximum(self.tokens, 1)

    def part(self, rows: slice) -> Answer:
        """The answer to some of the inputs."""
        return Answer(self.values[rows], self.truncated[rows], self.tokens[rows], self.unknown[rows])


@dataclass(frozen=True)
class EngineOptions:
    """How an engine computes: `threads` 0 is one a core, `device` None the best that works.

    `batch_tokens` is the largest padded sub-batch, 0 what suits the device.
    """

    threads: int = 0
    device: Device | None = None
    batch_tokens: int = 0

    @classmethod
    def from_settings(cls, settings: Settings, *, threads: int | None = None) -> EngineOptions:
        """As the settings say; `threads` where this process has but a share of them."""
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
        """Load the release in `directory`, of its device's files that of number `variant`. Nobody observes it yet.

        Raises ArtifactError where card, tokenizer or model cannot be loaded, or not on the device that was asked for.
        """
        options = options or EngineOptions()
        try:
            self.card = Card.model_validate_json((directory / "card.json").read_bytes())
            self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise ArtifactError(f"{directory}: the release cannot be loaded ({error})") from error
        self._observer = Observer()
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.card.max_length)
        self._pad = next((i for t in ("[PAD]", "<pad>") if (i := self._tokenizer.token_to_id(t)) is not None), 0)
        self._unknown = next((i for t in ("[UNK]", "<unk>") if (i := self._tokenizer.token_to_id(t)) is not None), -1)
        self.device, self._running = open_variant(directory, self.card, options.device, variant)
        self.variant = self.card.variants[self.device][variant]
        self.rates: dict[str, float] = {}
        "Golden sentences a second of each file for the device, where they were compared."
        # Where token types are the same for every token, they are part of the weights.
        self._with_types = any(item.name == "token_type_ids" for item in self._running.session.get_inputs())
        self._budget = options.batch_tokens or TOKEN_BUDGET[self.device]
        self._pool = ThreadPoolExecutor(options.threads or os.cpu_count() or 1, thread_name_prefix="engine")

    def observed_by(self, observer: Observer) -> None:
        """Tell `observer` of all work from now on."""
        self._observer = observer

    @property
    def provider(self) -> str:
        """What ONNX Runtime really runs on."""
        return str(self._running.session.get_providers()[0])

    @property
    def methods(self) -> tuple[Method, ...]:
        """How it can compare pairs, its own way first; empty where it compares none."""
        if self.card.objective != "bi-encoder":
            return ("cross-encoder",) if self.card.route == "/similarity" else ()
        lines: dict[Method, ScoreLine | None] = {"cosine": self.card.calibration, "euclidean": self.card.euclidean}
        return tuple(method for method, line in lines.items() if line)

    @property
    def has_vectors(self) -> bool:
        """Whether it makes vectors of single texts."""
        return self.card.objective == "bi-encoder"

    def classify(self, texts: Sequence[str]) -> Floats:
        """Class probabilities, (texts, labels). For classification releases only (ValueError)."""
        return self.answer([(text,) for text in texts], kind="classification").values

    def score(self, inputs: Sequence[tuple[str, ...]]) -> Floats:
        """Scores in the recipe's range, (inputs,), of texts or pairs. For regression releases only (ValueError)."""
        return self.answer(inputs, kind="regression").values[:, 0]

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, (texts, hidden). For bi-encoders only (ValueError)."""
        return self.vectors(texts).values

    def vectors(self, texts: Sequence[str]) -> Answer:
        """Unit vectors, (texts, hidden), and what was read of each text. For bi-encoders only (ValueError)."""
        if not self.has_vectors:
            raise ValueError(f"{self.card.id} has no sentence vectors: its objective is {self.card.objective}")
        for index, text in enumerate(texts):
            if problem := _problem((text,), 1):
                raise BadInputError(problem, index)
        return self._run([(text,) for text in texts])

    def answer(
        self, inputs: Sequence[tuple[str, ...]], kind: str | None = None, method: Method | None = None
    ) -> Answer:
        """Answers in the order of `inputs`, one text or pair each, and what was read of each.

        `method` is one of `methods`, the first unless given. Raises ValueError where the release is not of `kind` or
        has not `method`, and as `check` does.
        """
        card = self.card
        if kind not in (None, card.kind):
            raise ValueError(f"{card.id} is a {card.kind} release, not {kind}")
        if method is not None and method not in self.methods:
            raise ValueError(f"{card.id} has no method {method}")
        self.check(inputs)
        if card.objective == "bi-encoder":
            return self._compare(inputs, method or "cosine")
        raw = self._run(inputs)
        values = _softmax(raw.values) if card.kind == "classification" else self._clip(raw.values)
        return replace(raw, values=values)

    def check(self, inputs: Sequence[tuple[str, ...]]) -> None:
        """Raise BadInputError for the first of `inputs` that is not one text, or two of a pair, of whole characters."""
        for index, item in enumerate(inputs):
            if problem := self.problem(item):
                raise BadInputError(problem, index)

    def problem(self, item: tuple[str, ...]) -> str | None:
        """Why `item` cannot be answered, or None where it can."""
        return _problem(item, 2 if self.card.inputs == "pair" else 1)

    def _compare(self, pairs: Sequence[tuple[str, ...]], method: Method) -> Answer:
        both = self._run([(pair[side],) for side in (0, 1) for pair in pairs])
        line = self.card.calibration if method == "cosine" else self.card.euclidean
        if line is None:
            raise ArtifactError(f"{self.card.id}: card.json has no calibration, which a bi-encoder needs")
        left, right = both.values[: len(pairs)], both.values[len(pairs) :]
        measure = np.einsum("ij,ij->i", left, right) if method == "cosine" else np.linalg.norm(left - right, axis=1)
        scores = line.slope * measure + line.intercept
        truncated, tokens, unknown = (
            side.reshape(2, len(pairs)).sum(axis=0) for side in (both.truncated, both.tokens, both.unknown)
        )
        return Answer(self._clip(scores.astype(np.float32)[:, None]), truncated > 0, tokens, unknown)

    def _clip(self, scores: Floats) -> Floats:
        low, high = self.card.score_range or (-np.inf, np.inf)
        return np.asarray(np.clip(scores, low, high), dtype=np.float32)

    def _run(self, inputs: Sequence[tuple[str, ...]]) -> Answer:
        """The model's raw output, rows in the order of `inputs`."""
        began = perf_counter()
        # Hangul that comes taken apart (NFD, as from macOS) is put together: vocabularies have it whole.
        composed = [tuple(normalize("NFC", text) for text in item) for item in inputs]
        plain = [item[0] if len(item) == 1 else item for item in composed]
        # Fast: it leaves out the offsets, which nobody reads.
        encodings = self._tokenizer.encode_batch_fast(plain)
        self._observer.tokenized(perf_counter() - began)
        truncated = np.array([bool(item.overflowing) for item in encodings], dtype=np.bool_)
        lengths = np.array([len(item) for item in encodings], dtype=np.int64)
        batches = list(sub_batches(lengths, self._budget))
        marks = self._tokenizer.num_special_tokens_to_add(len(inputs) > 0 and len(inputs[0]) == 2)
        unknown = np.array([item.ids.count(self._unknown) for item in encodings], dtype=np.int64)
        if not batches:
            return Answer(np.zeros((0, self._width), dtype=np.float32), truncated, lengths, unknown)
        work = [[encodings[row] for row in rows] for rows in batches]
        # One sub-batch stays on this thread: handing it over costs more than it brings.
        outputs = [self._forward(work[0])] if len(work) == 1 else list(self._pool.map(self._forward, work))
        values = np.empty((len(inputs), outputs[0].shape[1]), dtype=np.float32)
        values[np.concatenate(batches)] = np.concatenate(outputs)
        return Answer(values, truncated, lengths - marks, unknown)

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
        """Columns of the model's output where it says so; 1 where it is dynamic and there is no row to see."""
        width = self._running.session.get_outputs()[0].shape[-1]
        return width if isinstance(width, int) else max(1, len(self.card.labels))


def sub_batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers in groups of like length: at most `budget` tokens (or one row), of which `PADDING` may be padding."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order].tolist()
    start = padding = 0
    for end in range(1, len(ordered) + 1):
        if end < len(ordered):
            # Sorted, so the row at `end` would be the longest of its group.
            padding += (ordered[end] - ordered[end - 1]) * (end - start)
            if ordered[end] * (end + 1 - start) <= budget and padding <= PADDING * budget:
                continue
        yield order[start:end]
        start, padding = end, 0


def _spread(rows: Iterable[list[int]], real: NDArray[np.bool_], filler: int) -> NDArray[np.int32]:
    """`rows` in an array (rows, length) where `real` is true, and `filler` elsewhere."""
    # All at once: an assignment a row costs more than all the rest of it.
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
            return f"half of a character at {error.start} (a lone surrogate), which no text has"
    return None


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
