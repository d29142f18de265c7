"""How the report writes figures, counts, durations and table cells, and its template, which uses these formats."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from pipeline.bounds import ERRORS, most_of
from pipeline.evaluation.gate_power import power_sentence
from pipeline.templates import templates_in


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


@cache
def report_template() -> Template:
    """Return the template of the report with its filters and functions."""
    environment = templates_in(Path(__file__).parent)
    formats = {"figure": figure, "count": count, "duration": duration, "cell": cell, "share": share}
    environment.filters |= formats | {"power": power_sentence}
    environment.globals |= {"most_of": most_of, "errors": ERRORS}
    return environment.get_template("report.html")
