"""Golden sentences: expected answers that verify a release wherever it is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import GoldenMismatchError
from pipeline.store.releases import Ask, Card
from serving.engine.engine import Engine


def check_golden(card: Card, ask: Ask) -> None:
    """Compare the answers of `ask` with the card's, one sentence (or pair) at a time, as at export.

    Raises GoldenMismatchError with the sentence, its answer and the expected one.
    """
    if not card.golden:
        raise GoldenMismatchError(
            f"{card.id}: its card has no golden sentences, so its answers cannot be checked; export the release again"
        )
    for golden in card.golden:
        answers = ask([golden.texts])
        if not _agree(answers, golden.expected, card.golden_tolerance):
            raise GoldenMismatchError(
                f"{card.id} answers {', '.join(map(_rounded, answers)) or 'nothing'} to {' | '.join(golden.texts)!r}; "
                f"its card says {_rounded(golden.expected)}, within {card.golden_tolerance:g}"
            )


def engine_answers(engine: Engine) -> Ask:
    """Return a function that gets answers from an engine in this process."""

    def ask(inputs: Sequence[tuple[str, ...]]) -> list[list[float]]:
        rows: list[list[float]] = engine.answer(inputs).values.tolist()
        return rows

    return ask


def _agree(answers: Sequence[Sequence[float]], expected: Sequence[float], tolerance: float) -> bool:
    """Return whether `answers` is one answer, within `tolerance` of the expected one; a NaN is never."""
    match answers:
        case [answer] if len(answer) == len(expected):
            return all(abs(got - wanted) <= tolerance for got, wanted in zip(answer, expected, strict=True))
    return False


def _rounded(values: Sequence[float]) -> str:
    return str([round(value, 4) for value in values])
