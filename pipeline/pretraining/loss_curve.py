"""Plot of losses over steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_losses(history: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Write a PNG of a Trainer's log history: `loss` and `eval_loss` over `step`."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    rows = list(history)
    for name, label in (("loss", "training"), ("eval_loss", "held-out")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1.2, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=144)
