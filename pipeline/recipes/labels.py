"""Names of classes: their canonical form."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.recipes.kinds.numerals import numeral
from pipeline.texts import composed, visible


def check_labels(names: Sequence[str]) -> None:
    """Raise ValueError if a name is not in its canonical form, or if two names are the same label or number."""
    for name in names:
        if not name or visible(name) != name or composed(name) != name:
            raise ValueError(
                f"`labels`: {visible(name)} must not be empty or contain invisible, decomposed (NFD) or full-width "
                "characters, or white space at an end"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"`labels` must all be different, not {', '.join(names)}")
    numbers = [number for name in names if (number := numeral(name)) is not None]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"`labels` must all be different numbers, not {', '.join(names)}")
