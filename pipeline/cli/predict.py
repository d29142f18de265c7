"""Run the served model on any text: predictions as JSON lines, and metrics on a labelled file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.errors import ArtifactError, DataError
from pipeline.progress import progress
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import Card, find_release, read_card

if TYPE_CHECKING:
    from serving.engine.engine import Engine

#: Inputs per call of the engine: enough to sort by length, few enough that the progress bar moves.
INPUTS_PER_CALL = 2048
#: Maximum bytes of an input line. The rest of a longer line is dropped, so that one without an end fits in memory.
LONGEST_LINE = 2**16


def champion(store: Store, recipe: str, name: str | None = None) -> Artifact:
    """Return the deployed release of `recipe`, or the release with the id or ref `name`.

    Raises ArtifactError if there is none, or if the named release belongs to another recipe.
    """
    release = find_release(store, name) if name else DeploymentLog(store).champion(recipe)
    if release is None:
        raise ArtifactError(f"no release of {recipe} is deployed in {store.uri}; run `saebyeok run {recipe}` first")
    card = read_card(release)
    if card.recipe != recipe:
        raise ArtifactError(f"{card.id} is a release of recipe {card.recipe}; name a release of {recipe}")
    return release


def evaluate_file(engine: Engine, recipe: Recipe, file: Path) -> dict[str, Any]:
    """Return the metrics of the engine's release on a labelled file, with `rows` and `release`, for `--json`.

    The file is in the recipe's format. Raises DataError with file, rows and rule if the file is invalid,
    ArtifactError if the labels of release and recipe differ.
    """
    import numpy as np

    from pipeline.data.reading import read_labelled
    from pipeline.tasks.registry import task_of

    if engine.card.labels != recipe.labels:
        raise ArtifactError(
            f"release {engine.card.id} has the labels {', '.join(engine.card.labels)}, but recipe {recipe.name} now "
            f"has {', '.join(recipe.labels)}; run `saebyeok run {recipe.name}` to train with these labels"
        )
    rows = read_labelled(recipe, file)
    inputs = list(rows[recipe.text_columns].itertuples(index=False, name=None))
    values = []
    with progress("evaluating", len(inputs)) as advance:
        for start in range(0, len(inputs), INPUTS_PER_CALL):
            values.append(engine.answer(inputs[start : start + INPUTS_PER_CALL]).values)
            advance(len(values[-1]))
    metrics = task_of(recipe).metrics(rows["label"].to_numpy(), np.concatenate(values))
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
    """Yield `file` opened for reading, or standard input for `-`. Raises DataError if the file cannot be read."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).expanduser().open("rb")
    except OSError as error:
        raise DataError(f"cannot read {file} ({error.strerror}); name a text file, or - for standard input") from error
    with stream:
        yield stream


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of `stream` as they arrive. Of a longer line, yield only the first `LONGEST_LINE` + 1 bytes."""
    while line := stream.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_LINE + 1)


def predict_lines(engine: Engine, lines: Iterable[bytes], chunk: int) -> Iterator[dict[str, Any]]:
    """Yield one document per line, in order; an invalid line yields `line` (counted from 1) and `error`.

    Reads at most `chunk` lines ahead of the answers.
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
    if len(line) > LONGEST_LINE:
        return DataError(f"the line is longer than {LONGEST_LINE:,} bytes; write one input per line")
    try:
        # `utf-8-sig` drops a byte order mark, which the first line may start with.
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return DataError(f"not UTF-8 (byte {error.start + 1} of the line); convert the file to UTF-8")
    if not text.strip():
        return DataError("the line is empty; write one input per line")
    if len(card.task.texts) == 1:
        return (text,)
    pair = _json_pair(text) if text.lstrip().startswith("[") else tuple(text.split("\t"))
    if pair is None or len(pair) != 2 or not all(part.strip() for part in pair):
        return DataError('not a pair; write two texts with a tab between them, or ["a", "b"]')
    return pair


def _json_pair(text: str) -> tuple[str, ...] | None:
    try:
        pair = json.loads(text)
    except (ValueError, RecursionError):
        # Not JSON: a plain text may start with a bracket too.
        return tuple(text.split("\t"))
    return tuple(pair) if isinstance(pair, list) and all(isinstance(part, str) for part in pair) else None


def _documents(engine: Engine, inputs: Sequence[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    if not inputs:
        return
    answer, card = engine.answer(inputs), engine.card
    for item, values, truncated in zip(inputs, answer.values.tolist(), answer.truncated.tolist(), strict=True):
        result = _rounded(card.task.result(card, values))
        yield {**_input(item), **result, "truncated": truncated, "release": card.id, "sample": card.sample}


def _rounded(value: Any) -> Any:
    """Return a result with all of its numbers rounded to 6 digits."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def _input(item: tuple[str, ...]) -> dict[str, Any]:
    return {"text": item[0]} if len(item) == 1 else {"pair": list(item)}
