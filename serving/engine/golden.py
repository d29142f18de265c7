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
        (answer,) = ask([golden.texts])
        same = len(answer) == len(golden.expected)
        if not same or any(
            not abs(got - wanted) <= card.golden_tolerance for got, wanted in zip(answer, golden.expected, strict=True)
        ):
            raise GoldenMismatchError(
                f"{card.id} answers {_rounded(answer)} to {' | '.join(golden.texts)!r}; its card says "
                f"{_rounded(golden.expected)}, within {card.golden_tolerance:g}"
            )


def engine_answers(engine: Engine) -> Ask:
    """Return a function that gets answers from an engine in this process."""

    def ask(inputs: Sequence[tuple[str, ...]]) -> list[list[float]]:
        rows: list[list[float]] = engine.answer(inputs).values.tolist()
        return rows

    return ask


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]
