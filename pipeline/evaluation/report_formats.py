"""How the report writes figures, counts, durations and table cells."""

from __future__ import annotations

import math
from typing import Any


def figure(value: float) -> str:
    """Return a figure with four decimals; a dash if it is not finite."""
    if not math.isfinite(value):
        return "–"
    # Differences are often negative, so use a real minus sign instead of a hyphen.
    return f"{value:.4f}".replace("-", "\N{MINUS SIGN}")


def share(value: float) -> str:
    """Return a share as a whole percentage."""
    return f"{value:.0%}"


def count(value: float) -> str:
    """Return a count with separators between thousands."""
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Return a duration in seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def cell(value: Any) -> str:
    """Return a value of a table: numbers with four digits, lists with commas, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


#: Filters of the report's template.
FORMATS = {"figure": figure, "count": count, "duration": duration, "cell": cell, "share": share}
