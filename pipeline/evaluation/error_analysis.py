"""Error analysis: metrics per slice of the test file, and the worst mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pipeline.recipes.schema import Recipe
from pipeline.tasks.registry import task_of

#: Mistakes to list: enough to see a pattern, few enough to read.
COUNT = 20


Mask = np.ndarray[Any, np.dtype[np.bool_]]

#: Smaller parts are counted but get no figure, because its interval would be too wide.
FEWEST_ROWS = 30
#: Sources to list. A file may have a source of its own for each row, such as an address.
MOST_SOURCES = 20
#: Typed laughter and crying.
LAUGHTER = re.compile("[ㅋㅠ]")
#: 안 and 못 as separate words, 못하다 and 못되다, 않다, 없다, 아니다, 지 마, 별로, 전혀. Matched by form alone: double
#: negations and 아니 as an exclamation match too.
NEGATION = re.compile(
    r"(?<![가-힣])[안못](?![가-힣])"
    # Written without a space, before verbs and adjectives that are common in film reviews.
    r"|(?<![가-힣])[안못](?:봤|봐|보[고는면았]|본|볼|봄|좋|재[미밌]|잼|웃|무[섭서]|슬[프퍼]|[되돼된될됨됐]|[해했한할함]|하[고는면]|갔|맞|믿|끌|나[오온와왔])"
    r"|못[하했한할해되된]|않|없|아니|아닌|아님|지\s?(?:마|말[자고라기길것])|지\s말|별로|전혀"
)


def slice_figures(recipe: Recipe, test: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the recipe's first metric on parts of the test file.

    `test` has `text` (and `text_pair`), `label`, `prediction`, `in_train`, and `source` if the file has it.
    Each part: `slice`, `part`, `rows`, and `figure` with `value`, `low` and `high` (95%; None below
    `FEWEST_ROWS`). Parts without rows are omitted, and so are slices with a single part (the whole file).
    """
    found = []
    for name, parts in _slices(test).items():
        filled = {part: mask for part, mask in parts.items() if mask.any()}
        if len(filled) > 1:
            found += [_figures(recipe, test, name, part, mask) for part, mask in filled.items()]
    return found


def _figures(recipe: Recipe, test: pd.DataFrame, name: str, part: str, mask: Mask) -> dict[str, Any]:
    rows = int(mask.sum())
    labels, predictions = (test[column].to_numpy()[mask] for column in ("label", "prediction"))
    figure = task_of(recipe).first_interval(labels, predictions) if rows >= FEWEST_ROWS else None
    return {"slice": name, "part": part, "rows": rows, "figure": figure}


def _slices(test: pd.DataFrame) -> dict[str, dict[str, Mask]]:
    texts = test["text"] + "\n" + test["text_pair"] if "text_pair" in test else test["text"]
    slices = {
        "length": dict(_quartiles(texts.str.len().to_numpy() - int("text_pair" in test))),
        "ㅋ or ㅠ": _with_and_without(texts, LAUGHTER),
        "negation": _with_and_without(texts, NEGATION),
        "text": {"in train too": test["in_train"].to_numpy(bool), "new": ~test["in_train"].to_numpy(bool)},
    }
    if "source" in test:
        slices["source"] = _by_source(test["source"].fillna("none given"))
    return slices


def _by_source(sources: pd.Series[str]) -> dict[str, Mask]:
    """Return the rows of each source. If there are too many sources, the smaller ones become one part."""
    counts = sources.value_counts()
    if len(counts) > MOST_SOURCES:
        counts = counts[counts >= FEWEST_ROWS].head(MOST_SOURCES)
    parts = {str(name): (sources == name).to_numpy(bool) for name in sorted(counts.index)}
    rest = ~sources.isin(counts.index).to_numpy(bool)
    number = sources[rest].nunique()
    return parts | {f"{number:,} other sources": rest} if number else parts


def _quartiles(lengths: np.ndarray[Any, Any]) -> Iterator[tuple[str, Mask]]:
    # Many rows have the same length, so the quarters differ slightly in size.
    ends = np.quantile(lengths, [0.25, 0.5, 0.75, 1.0], method="lower")
    start = int(lengths.min())
    for end in map(int, ends):
        if end >= start:
            yield f"{start} to {end} characters", (lengths >= start) & (lengths <= end)
            start = end + 1


def _with_and_without(texts: pd.Series[str], pattern: re.Pattern[str]) -> dict[str, Mask]:
    found = texts.str.contains(pattern).to_numpy(bool)
    return {"with": found, "without": ~found}


def worst_mistakes(recipe: Recipe, test: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the most confident mistakes, or for scores the rows with the largest errors; worst first.

    `test` is the table of `evaluate`. Each row: `id`, `text` (and `text_pair`), `label`, `prediction` (names of
    labels, or scores), `in_train`, and `probability` or `error` (prediction minus label).
    """
    shown = task_of(recipe).worst_mistakes(test, COUNT)
    return [{str(name): value for name, value in row.items()} for row in shown.to_dict("records")]
