"""Labels that are numbers: their value, and the spellings in which files may write them."""

from __future__ import annotations

import math
import re

#: Whole numbers up to this one are exact as floating-point numbers; beyond it, several numbers share a spelling.
EXACT = 2**53
NUMERAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def numeral(name: str) -> float | None:
    """Return the number that a name spells; None if it does not spell a finite number."""
    number = float(name) if NUMERAL.fullmatch(name) else math.nan
    return number if math.isfinite(number) else None


def spellings(name: str) -> tuple[str, ...]:
    """Return the ways in which JSON writers write the number that a name spells; empty if it spells none."""
    number = numeral(name)
    if number is None:
        return ()
    whole = number.is_integer() and abs(number) <= EXACT
    return (repr(number), str(int(number))) if whole else (repr(number),)
