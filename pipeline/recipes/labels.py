"""Names of classes: their canonical form."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.recipes.kinds.numerals import numeral
from pipeline.texts import composed, visible


def check_labels(names: Sequence[str]) -> None:
    """Raise ValueError if a name is not in its canonical form, or if two names are the same label or number."""
    for name in names:
        if fault := _fault(name):
            raise ValueError(f"`labels`: {visible(name)} {fault}")
    if len(set(names)) < len(names):
        raise ValueError(f"`labels` must all be different, not {', '.join(names)}")
    numbers = [number for name in names if (number := numeral(name)) is not None]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"`labels` must all be different numbers, not {', '.join(names)}")


def _fault(name: str) -> str | None:
    """Return what is wrong with a name and what to do, as the end of a sentence; None if it is canonical."""
    if not name:
        return "is empty; give the label a name"
    if name != name.strip():
        return "begins or ends with white space; remove it"
    if visible(name) != name:
        return "has an invisible or full-width character; remove or replace it"
    return "is decomposed (NFD); write it in NFC" if composed(name) != name else None
