"""The served model on any text: predictions as JSON lines, and metrics on a labelled file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from pipeline.errors import ArtifactError, DataError
from pipeline.progress import progress
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import Card, read_card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Inputs handed to the engine at once: enough to sort by length, and a bar that moves.
CHUNK = 2048
#: Bytes of a line of input; of a longer one no more is kept, so that a file without ends of lines fills no memory.
LONGEST = 2**16


class Answer(Protocol):
    """Values (inputs, labels) of probabilities or (inputs, 1) of scores, and which inputs were cut short."""

    @property
    def values(self) -> NDArray[np.float32]:
        """See the class."""

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """See the class."""


class Engine(Protocol):
    """What is needed of `serving.engine.engine.Engine`, which only the command line may import."""

    card: Card

    def problem(self, item: tuple[str, ...]) -> str | None:
        """Why an input cannot be answered, or None where it can."""

    def answer(self, inputs: Sequence[tuple[str, ...]]) -> Answer:
        """Answers in the order of `inputs`, one text or pair each."""


def champion(store: Store, recipe: str, ref: str | None = None) -> Artifact:
    """The release that is served for `recipe`, or the one at `ref`. Raises ArtifactError where there is none."""
    release = store.open(ref) if ref else DeploymentLog(store).champion(recipe)
    if release is None:
        raise ArtifactError(f"nothing is deployed for {recipe} in {store.uri}; run `saebyeok run {recipe}` first")
    card = read_card(release)
    if card.recipe != recipe:
        raise ArtifactError(f"{release.ref} is a release of {card.recipe}, not of {recipe}")
    return release


def evaluate_file(engine: Engine, recipe: Recipe, file: Path) -> dict[str, Any]:
    """Metrics of the engine's release on a labelled file of the recipe's format, with `rows` and `release`.

    Raises DataError naming file, rows and rule.
    """
    import numpy as np

    from pipeline.data.reading import read_labelled
    from pipeline.evaluation.metrics import compute_metrics

    if engine.card.labels != recipe.labels:
        raise ArtifactError(
            f"{engine.card.id} knows the labels {', '.join(engine.card.labels)} and recipe {recipe.name} now has "
            f"{', '.join(recipe.labels)}; run `saebyeok run {recipe.name}` to train on these"
        )
    rows = read_labelled(recipe, file)
    inputs = list(rows[recipe.text_columns].itertuples(index=False, name=None))
    values = []
    with progress("evaluating", len(inputs)) as advance:
        for start in range(0, len(inputs), CHUNK):
            values.append(engine.answer(inputs[start : start + CHUNK]).values)
            advance(len(values[-1]))
    predictions = np.concatenate(values)
    metrics = compute_metrics(
        recipe, rows["label"].to_numpy(), predictions if recipe.kind == "classification" else predictions[:, 0]
    )
    return {
        "recipe": recipe.name,
        "release": engine.card.id,
        "sample": engine.card.sample,
        "file": str(file),
        "rows": len(rows),
        "metrics": {name: float(value) for name, value in metrics.items()},
    }


@contextmanager
def open_lines(file: str) -> Iterator[BinaryIO]:
    """A file, or standard input where it is `-`. Raises DataError where it cannot be read."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).expanduser().open("rb")
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); name a text file, or - for standard input"
        ) from error
    with stream:
        yield stream


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of `stream` as they come; of one that is too long, the first `LONGEST` bytes and one more."""
    while line := stream.readline(LONGEST + 1):
        yield line
        while len(line) > LONGEST and not line.endswith(b"\n"):
            line = stream.readline(LONGEST + 1)


def predict_lines(engine: Engine, lines: Iterable[bytes], chunk: int) -> Iterator[dict[str, Any]]:
    """One document a line, in order; a line that is no input gets `line` (from 1) and `error`.

    At most `chunk` lines are read ahead of the answers.
    """
    numbered = enumerate(lines, start=1)
    while batch := list(islice(numbered, chunk)):
        parsed = [(number, _parsed(line, engine)) for number, line in batch]
        good = [item for _, item in parsed if isinstance(item, tuple)]
        answers = _documents(engine, good)
        for number, item in parsed:
            yield next(answers) if isinstance(item, tuple) else {"line": number, "error": str(item)}


def _parsed(line: bytes, engine: Engine) -> tuple[str, ...] | DataError:
    item = _input_of(line, engine.card)
    if isinstance(item, tuple) and (problem := engine.problem(item)):
        return DataError(problem)
    return item


def _input_of(line: bytes, card: Card) -> tuple[str, ...] | DataError:
    if len(line) > LONGEST:
        return DataError(f"the line is longer than {LONGEST:,} bytes; each holds one input")
    try:
        # A byte order mark can only be at the start of the first line; it belongs to no text.
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return DataError(f"not UTF-8 (byte {error.start + 1} of the line); convert the file to UTF-8")
    if not text.strip():
        return DataError("the line is empty; each holds one input")
    if card.inputs == "text":
        return (text,)
    pair = _json_pair(text) if text.lstrip().startswith("[") else tuple(text.split("\t"))
    if pair is None or len(pair) != 2 or not all(part.strip() for part in pair):
        return DataError('not a pair; write two sentences with a tab between them, or ["a", "b"]')
    return pair


def _json_pair(text: str) -> tuple[str, ...] | None:
    try:
        pair = json.loads(text)
    except ValueError:
        # A sentence may start with a bracket, too.
        return tuple(text.split("\t"))
    return tuple(pair) if isinstance(pair, list) and all(isinstance(part, str) for part in pair) else None


def _documents(engine: Engine, inputs: Sequence[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    if not inputs:
        return
    answer, card = engine.answer(inputs), engine.card
    for item, values, truncated in zip(inputs, answer.values, answer.truncated, strict=True):
        if card.kind == "classification":
            best = int(values.argmax())
            result: dict[str, Any] = {
                "label": card.labels[best],
                "score": round(float(values[best]), 6),
                "probabilities": {
                    label: round(float(value), 6) for label, value in zip(card.labels, values, strict=True)
                },
            }
        else:
            score = float(values[0])
            result = {"score": round(score, 6)}
            if card.inputs == "pair":
                result["similar"] = card.similar_at is not None and score >= card.similar_at
        yield {**_input(item), **result, "truncated": bool(truncated), "release": card.id, "sample": card.sample}


def _input(item: tuple[str, ...]) -> dict[str, Any]:
    return {"text": item[0]} if len(item) == 1 else {"pair": list(item)}
