"""Names of classes: one canonical form each, and the spellings in which files may write names that are numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pipeline.texts import composed, visible

NUMERAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def numeral(name: str) -> float | None:
    """Return the number that a name is; None if it is not a finite number."""
    number = float(name) if NUMERAL.fullmatch(name) else math.nan
    return number if math.isfinite(number) else None


def spellings(name: str) -> tuple[str, ...]:
    """Return the ways in which JSON writers write the number that a name is; empty if it is not a number."""
    number = numeral(name)
    if number is None:
        return ()
    return (repr(number), str(int(number))) if number.is_integer() else (repr(number),)


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
