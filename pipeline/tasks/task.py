"""The interface of a task: model, answers, metrics and plots of a recipe, by its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

from pipeline.metrics.arrays import Numbers
from pipeline.metrics.intervals import Interval, bootstrap_interval
from pipeline.recipes.behaviour import BehaviourTest
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from pipeline.models.network import Network


@dataclass(frozen=True)
class Shift:
    """A figure of new rows, its usual value, and of their difference the p-value and the effect size."""

    name: str
    found: str
    usual: str
    chance: float
    effect: float


def more_in_first(
    first: Sequence[float] | pd.Series[float] | Numbers, second: Sequence[float] | pd.Series[float] | Numbers
) -> tuple[float, float]:
    """Return by how much values of `first` exceed those of `second`: one-sided p-value of ranks, and Cliff's delta."""
    test = stats.mannwhitneyu(first, second, alternative="greater")
    return float(test.pvalue), float(2 * test.statistic / (len(first) * len(second)) - 1)


@dataclass(frozen=True)
class Task(ABC):
    """A recipe's task. Labels and predictions of n rows are numbers (n,); the form of answers depends on the kind."""

    recipe: Recipe

    @abstractmethod
    def build(self, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> Network:
        """Return the model before training, from the directory `base`, or from scratch if `base` is None.

        Random weights come from torch's generator: seed it first. Raises BaseModelError if `base` cannot be loaded.
        """

    @abstractmethod
    def label_shift(self, new: pd.Series[float], old: pd.Series[float]) -> Shift:
        """Compare the labels of new rows with those of earlier ones."""

    @abstractmethod
    def decode(self, outputs: Numbers) -> Numbers:
        """Return the answers in a model's raw outputs, (n, ...)."""

    def combine(self, outputs: Sequence[Numbers]) -> Numbers:
        """Return the raw outputs for a batch, from those of the exported graph for each column of token ids."""
        (output,) = outputs
        return output

    @abstractmethod
    def scale(self, answers: Numbers, line: ScoreLine | None) -> Numbers:
        """Map decoded answers by the fitted `line`, if the model has one, and clip them to the recipe's range."""

    @abstractmethod
    def predictions(self, answers: Numbers, labels: Sequence[str]) -> Numbers:
        """Return the predictions in the answers of a model with `labels`, as label numbers of this recipe or scores."""

    @abstractmethod
    def columns(self, answers: Numbers) -> dict[str, Numbers]:
        """Return the columns of a table of predictions: `prediction`, and further ones of this kind."""

    @abstractmethod
    def classes(self, predictions: Numbers) -> Numbers:
        """Return the label numbers (n,) by which answers or predictions count as equal; for scores, 1 is positive."""

    @abstractmethod
    def metrics(self, labels: Numbers, predictions: Numbers) -> dict[str, float]:
        """Return the recipe's metrics of answers or predictions."""

    def judge(self, outputs: Numbers, labels: Numbers) -> dict[str, float]:
        """Return the metrics of raw outputs during training, by which the best epoch is chosen."""
        return self.metrics(labels, self.decode(outputs))

    def calibrate(self, predict: Callable[[], tuple[Numbers, Numbers]]) -> dict[str, Any]:
        """Return the fitted lines from decoded answers to scores, by name, or None for each if there are none.

        `predict` returns the raw outputs and the labels of the validation split.
        """
        return {"calibration": None, "euclidean": None}

    @abstractmethod
    def resampled(self, labels: Numbers, predictions: Numbers) -> dict[str, Numbers]:
        """Return each metric's values (resamples,) in resamples of the rows."""

    def intervals(self, labels: Numbers, predictions: Numbers) -> dict[str, Interval]:
        """Return each metric with its 95% interval, the percentile bootstrap over rows."""
        draws = self.resampled(labels, predictions)
        return {
            name: bootstrap_interval(value, draws[name]) for name, value in self.metrics(labels, predictions).items()
        }

    @abstractmethod
    def first_interval(self, labels: Numbers, predictions: Numbers) -> Interval:
        """Return the first metric with its 95% interval in closed form, for many small groups of at least four rows.

        NaN if the metric has no value.
        """

    @abstractmethod
    def difference(self, labels: Numbers, challenger: Numbers, champion: Numbers) -> Interval:
        """Return challenger minus champion on the first metric, with the 90% interval of the paired bootstrap.

        The gate compares the lower end, the 5% quantile, with the non-inferiority margin (one-sided, 5%). NaN if
        either model has no value; such a comparison fails.
        """

    def rows_needed(self, margin: float) -> int:
        """Return the fewest rows on which the lower end of `difference` of two equal models is within `margin`."""
        return 1

    @abstractmethod
    def influence(self, labels: Numbers, answers: Numbers) -> Numbers:
        """Return the influence of each row on the first metric, (n,)."""

    @abstractmethod
    def quality_shift(self, rows: pd.DataFrame, answers: Numbers, labels: Sequence[str], test: pd.DataFrame) -> Shift:
        """Compare the answers of a model with `labels` to new `rows` with its predictions for its `test` rows."""

    @abstractmethod
    def further_figures(self, labels: Numbers, answers: Numbers) -> dict[str, Any]:
        """Return figures on the test file besides the metrics, by name."""

    def compare_methods(
        self, labels: Numbers, raw: Numbers, found: dict[str, Interval], line: ScoreLine | None
    ) -> dict[str, Any]:
        """Return as `similarity` the metrics by each method to compare pairs; empty if the model has only one method.

        `raw` are the decoded answers for the test file, `found` the metrics by the default method, and `line` maps the
        numbers of the other method to scores.
        """
        return {}

    @abstractmethod
    def draw(self, labels: Numbers, answers: Numbers, directory: Path) -> None:
        """Write plots of the predictions for the test file into `directory`: `plot.png` and others."""

    @abstractmethod
    def worst_mistakes(self, test: pd.DataFrame, count: int) -> pd.DataFrame:
        """Return the worst mistakes in a table of predictions, worst first, as a reader should see them.

        Columns: `id`, the texts, `label`, `prediction`, a measure of the mistake, and `in_train`.
        """

    @abstractmethod
    def passes(self, test: BehaviourTest, answers: Numbers) -> Numbers:
        """Return which cases of a behavioural test pass, bool (cases,); `answers` are (cases, inputs, ...)."""

    @abstractmethod
    def watched(self, test: BehaviourTest, answers: Numbers) -> Numbers:
        """Return the numbers (cases, inputs) in the answers that a behavioural test is about."""


def moves_as_expected(test: BehaviourTest, watched: Numbers) -> Numbers:
    """Return whether the change from the first to the second input is the one that `test` expects, bool (cases,)."""
    moved = watched[:, 1] - watched[:, 0]
    assert test.by is not None  # the recipe's own rule
    return moved >= test.by if test.by > 0 else moved <= test.by
