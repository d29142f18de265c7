"""Look at a data file: choose its columns, and measure labels, lengths and balance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

from pipeline.data.overlap import near_key
from pipeline.drafting.raw_table import RawTable, read_table
from pipeline.errors import RecipeError
from pipeline.recipes.kinds.numerals import numeral
from pipeline.texts import composed

#: Names of label columns, of columns of ids, and endings of the names of two columns that are a pair.
LABELS = re.compile(
    "label|class|categor|topic|target|sentiment|emotion|score|rating|stars?"
    "|라벨|레이블|분류|분야|범주|감성|감정|점수|평점|별점|주제",
    re.I,
)
IDS = re.compile(r"(^|[_.-])(id|guid|uuid|idx|index|no|key)$|번호|아이디|식별", re.I)
PAIRS = (
    ("1", "2"),
    ("_a", "_b"),
    ("premise", "hypothesis"),
    ("question", "answer"),
    ("질문", "답변"),
    ("전제", "가설"),
)
#: Fewest rows of a file that a recipe is drafted for.
FEWEST = 50
#: Most classes of a classification; a label with more values is a score, or no label at all.
MOST_CLASSES = 50
#: Most values of a label of whole numbers that are classes. More are a scale.
MOST_NUMBERED_CLASSES = 10
HANGUL = re.compile("[ᄀ-ᇿㄱ-ㆎ가-힣]")
#: Answers to the question about the kind.
KINDS = ("classes", "scores")
#: A question to a person: its text, the choices, the default (empty if there is none), and the most choices to take.
Ask = Callable[[str, Sequence[str], Sequence[str], int], tuple[str, ...]]


@dataclass(frozen=True)
class Chosen:
    """Columns that a user named; empty means that they are guessed."""

    texts: tuple[str, ...] = ()
    label: str = ""
    id: str = ""
    scores: bool | None = None


@dataclass(frozen=True)
class Inspection:
    """The columns of a data file and its figures."""

    table: RawTable
    texts: tuple[str, ...]
    label: str
    id: str | None
    scores: bool
    labels: dict[str, int]
    "Rows per label, in the order of the recipe's labels; empty for scores."
    score_range: tuple[float, float] | None
    lengths: tuple[int, int, int]
    "Characters of a row's texts: median, 99th percentile and maximum."
    hangul: float
    "Share of rows with a text in Hangul."
    duplicates: float
    "Share of rows that repeat an earlier text, after normalisation."
    two_labels: float
    "Share of rows whose text also has another label."

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.table.rows)


def inspect(file: Path, chosen: Chosen, ask: Ask | None = None) -> Inspection:
    """Return the columns and figures of a data file.

    `ask` asks a person about columns and kind if there is no clear guess. Without it the likeliest guess counts. Raises
    RecipeError if columns do not exist or cannot be guessed, or if there are too few rows.
    """
    table = read_table(file)
    if len(table.rows) < FEWEST:
        raise RecipeError(f"{file} has {len(table.rows)} rows; a model needs at least {FEWEST}")
    for name in (*chosen.texts, chosen.label, chosen.id):
        if name and name not in table.columns:
            raise RecipeError(f"{file} has no column {name!r}; it has: {', '.join(table.columns)}")
    label = chosen.label or _choose_label(file, table, chosen.texts, ask)
    texts = chosen.texts or _choose_texts(file, table, label, ask)
    ids = chosen.id or _guess_id(table, {label, *texts})
    values = [composed(value).strip() for value in table.values(label)]
    scores = _choose_kind(label, values, ask) if chosen.scores is None else chosen.scores
    numbers = [number for value in values if (number := numeral(value)) is not None]
    if scores and len(set(numbers)) < 2:
        raise RecipeError(f"{file}: column {label!r} has fewer than two numbers, so it holds no scores")
    lengths = [sum(len(str(row.get(name) or "")) for name in texts) for row in table.rows]
    return Inspection(
        table=table,
        texts=texts,
        label=label,
        id=ids,
        scores=scores,
        labels={} if scores else _ordered(Counter(value for value in values if value)),
        score_range=(min(numbers), max(numbers)) if scores else None,
        lengths=(int(quantiles(lengths, n=2)[0]), int(quantiles(lengths, n=100)[-1]), max(lengths)),
        hangul=mean(bool(HANGUL.search(str(row.get(texts[0]) or ""))) for row in table.rows),
        **_repetition(table, texts, label),
    )


def _choose_label(file: Path, table: RawTable, texts: Sequence[str], ask: Ask | None) -> str:
    likely, others = _label_candidates(table, texts)
    if ask and len(likely or others) != 1:
        columns = [name for name in table.columns if name not in texts]
        return ask("Which column holds the labels or scores?", columns, (likely or others)[:1], 1)[0]
    if not (likely or others):
        raise RecipeError(f"{file}: no column looks like a label; name it with --label: {', '.join(table.columns)}")
    return (likely or others)[0]


def _label_candidates(table: RawTable, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the columns that may hold labels, the ones with the fewest values first: named like labels, and others."""
    found: dict[str, int] = {}
    for name in table.columns:
        values = table.values(name)
        count = len(set(values))
        few = 2 <= count <= min(MOST_CLASSES, max(2, len(values) // 3))
        numbers = all(numeral(value) is not None for value in values) and bool(LABELS.search(name))
        if name not in texts and (few or numbers) and not IDS.search(name):
            found[name] = count
    ordered = sorted(found, key=lambda name: (found[name], name))
    likely = [name for name in ordered if LABELS.search(name)]
    return likely, [name for name in ordered if name not in likely]


def _choose_texts(file: Path, table: RawTable, label: str, ask: Ask | None) -> tuple[str, ...]:
    sizes = _text_sizes(table, label)
    for first, second in PAIRS:
        for name in sizes:
            other = name[: -len(first)] + second
            if name.lower().endswith(first) and other in sizes:
                return name, other
    longest = tuple(sorted(sizes, key=lambda name: -sizes[name])[:1])
    if ask and len(sizes) != 1:
        columns = [name for name in table.columns if name != label]
        return ask("Which column holds the texts (two columns for pairs)?", columns, longest, 2)
    if not longest:
        raise RecipeError(f"{file}: no column looks like a text; name it with --text: {', '.join(table.columns)}")
    return longest


def _text_sizes(table: RawTable, label: str) -> dict[str, float]:
    """Return the mean length in characters of each column that may hold texts."""
    sizes: dict[str, float] = {}
    for name in table.columns:
        values = table.values(name)
        if name == label or IDS.search(name) or not values or all(numeral(value) is not None for value in values):
            continue
        if len(set(values)) > len(values) // 4:
            sizes[name] = mean(map(len, values))
    return sizes


def _choose_kind(label: str, values: Sequence[str], ask: Ask | None) -> bool:
    """Return whether labels are scores. A few whole numbers may be classes or a scale, such as stars."""
    scores = _are_scores(values)
    unclear = not scores and len(set(values)) > 2 and all(numeral(value) is not None for value in values)
    if ask and unclear:
        question = f"Are the numbers in {label!r} classes, or scores on a scale?"
        return ask(question, KINDS, KINDS[:1], 1) == KINDS[1:]
    return scores


def _guess_id(table: RawTable, others: set[str]) -> str | None:
    for name in table.columns:
        values = table.values(name)
        if name not in others and IDS.search(name) and len(set(values)) == len(table.rows) == len(values):
            return name
    return None


def _are_scores(values: Sequence[str]) -> bool:
    numbers = [numeral(value) for value in values]
    if any(number is None for number in numbers):
        return False
    return len(set(numbers)) > MOST_NUMBERED_CLASSES or any(number % 1 for number in numbers if number is not None)


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """Return labels in the order of their numbers, or else of the alphabet."""
    numbers = {label: numeral(label) for label in counts}
    if all(number is not None for number in numbers.values()):
        return dict(sorted(counts.items(), key=lambda item: numbers[item[0]] or 0.0))
    return dict(sorted(counts.items()))


def _repetition(table: RawTable, texts: Sequence[str], label: str) -> dict[str, Any]:
    keys = [near_key(str(row.get(name) or "") for name in texts) for row in table.rows]
    known: dict[str, set[str]] = {}
    for key, row in zip(keys, table.rows, strict=True):
        known.setdefault(key, set()).add(str(row.get(label)))
    return {
        "duplicates": 1 - len(known) / len(keys),
        "two_labels": mean(len(known[key]) > 1 for key in keys),
    }
