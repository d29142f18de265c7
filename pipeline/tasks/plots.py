"""Plots of the predictions for the test file: confusion matrix, scatter plot of scores, reliability curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.metrics.arrays import Numbers
from pipeline.metrics.classification import confusion
from pipeline.recipes.schema import Recipe

#: Has the glyphs of Korean class names, which Matplotlib's own fonts lack.
HANGUL = Path(__file__).parent / "fonts" / "hangul.ttf"


def draw_confusion(recipe: Recipe, labels: Numbers, classes: Numbers, file: Path) -> None:
    """Write the confusion matrix of two arrays of label numbers (n,) as PNG."""
    with _titled(recipe, file) as axes:
        _confusion(recipe, axes, labels, classes)


def draw_scores(recipe: Recipe, labels: Numbers, scores: Numbers, file: Path) -> None:
    """Write a scatter plot of scores (n,) over labels (n,) as PNG."""
    with _titled(recipe, file) as axes:
        _scatter(recipe, axes, labels, scores)


@contextmanager
def _titled(recipe: Recipe, file: Path) -> Iterator[Axes]:
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    yield axes
    axes.set_title("Test file (shipped sample)" if recipe.sample else "Test file", fontsize=11)
    figure.savefig(file, dpi=144)


def draw_reliability(recipe: Recipe, calibration: Mapping[str, Any], file: Path) -> None:
    """Write a PNG of `measure_calibration`: accuracy over confidence, and below it the rows per bin."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins = calibration["curve"]
    centres = [(item["low"] + item["high"]) / 2 for item in bins]
    lowest = 1 / len(recipe.labels)
    curve.plot([lowest, 1], [lowest, 1], color="grey", linewidth=0.8)
    points = [item["confidence"] for item in bins], [item["accuracy"] for item in bins]
    curve.plot(*points, linewidth=0.8)
    # The accuracy of a bin with few rows is mostly noise, so draw its point small.
    most = max(item["rows"] for item in bins)
    curve.scatter(*points, s=[4 + 60 * item["rows"] / most for item in bins])
    curve.set_ylabel("accuracy")
    curve.set_ylim(0, 1.03)
    counts.bar(centres, [item["rows"] for item in bins], width=0.9 / calibration["bins"])
    counts.set_ylabel("rows")
    counts.set_xlabel("confidence of the model")
    curve.set_title(
        f"Test file{' (shipped sample)' if recipe.sample else ''}, calibration error {calibration['ece']:.4f}",
        fontsize=11,
    )
    figure.savefig(file, dpi=144)


def _confusion(recipe: Recipe, axes: Axes, labels: Numbers, classes: Numbers) -> None:
    counts = confusion(labels, classes, len(recipe.labels))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        axes.text(
            column, row, f"{count:,}\n{share:.1%}", ha="center", va="center", color="white" if share > 0.5 else "black"
        )
    axes.set_xticks(range(len(recipe.labels)), recipe.labels, fontfamily=_korean_fonts())
    axes.set_yticks(range(len(recipe.labels)), recipe.labels, rotation=90, va="center", fontfamily=_korean_fonts())
    axes.set_xlabel("model")
    axes.set_ylabel("label")


@cache
def _korean_fonts() -> list[str]:
    """Register the font for Hangul, and return the names of Matplotlib's own fonts followed by its name."""
    font_manager.fontManager.addfont(HANGUL)
    return [*rcParams["font.family"], font_manager.FontProperties(fname=HANGUL).get_name()]


def _scatter(recipe: Recipe, axes: Axes, labels: Numbers, scores: Numbers) -> None:
    assert recipe.score_range is not None  # the recipe's own rules
    assert recipe.similar_at is not None
    axes.scatter(labels, scores, s=9, alpha=0.45, linewidths=0)
    axes.plot(recipe.score_range, recipe.score_range, color="grey", linewidth=0.8)
    for line in (axes.axvline, axes.axhline):
        line(recipe.similar_at, color="grey", linewidth=0.8, linestyle=":")
    low, high = recipe.score_range
    margin = 0.03 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    axes.set_aspect("equal")
    axes.set_xlabel("label")
    axes.set_ylabel("model")
