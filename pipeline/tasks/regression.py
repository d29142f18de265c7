"""Regression: answers and predictions are scores (n,) in the recipe's range.

The decoded answers of a bi-encoder are cosines, and a fitted line maps them to scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.errors import TrainingDivergedError
from pipeline.metrics.arrays import Numbers
from pipeline.metrics.classification import confusion, f1
from pipeline.metrics.comparison import pearson_difference
from pipeline.metrics.correlation import correlations, pearson, pearson_influence
from pipeline.metrics.intervals import Interval, drawn_rows, pearson_interval
from pipeline.recipes.behaviour import BehaviourTest
from pipeline.recipes.kinds.regression import positive_at
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.tasks.task import Shift, Task, more_in_first, moves_as_expected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from pipeline.models.network import Network


class RegressionTask(Task):
    """Scores of texts or pairs, by a model with one output."""

    @property
    def _range(self) -> tuple[float, float]:
        return self.recipe.task.answer_range(self.recipe)

    def build(self, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> Network:
        """Return a classifier with one output, trained by the mean squared error."""
        # Imported here so that labels are read without torch.
        from pipeline.models.build import build_classifier

        return build_classifier(self.recipe, base, tokenizer, {"num_labels": 1, "problem_type": "regression"})

    def label_shift(self, new: pd.Series[float], old: pd.Series[float]) -> Shift:
        """Compare the means (Welch's t-test)."""
        chance = float(stats.ttest_ind(new, old, equal_var=False).pvalue) if new.nunique() > 1 else 0.0
        effect = abs(new.mean() - old.mean()) / (self._range[1] - self._range[0])
        return Shift("scores", f"mean {new.mean():.2f}", f"{old.mean():.2f}", chance, float(effect))

    def decode(self, outputs: Numbers) -> Numbers:
        """Return one number for each row."""
        return outputs.ravel()

    def scale(self, answers: Numbers, line: ScoreLine | None) -> Numbers:
        """Return scores: map the numbers by `line`, and clip them."""
        if line is not None:
            answers = line.slope * answers + line.intercept
        return np.asarray(np.clip(answers, *self._range))

    def predictions(self, answers: Numbers, labels: Sequence[str]) -> Numbers:
        """Return the scores."""
        return answers

    def columns(self, answers: Numbers) -> dict[str, Numbers]:
        """Return `prediction`."""
        return {"prediction": answers}

    def classes(self, predictions: Numbers) -> Numbers:
        """Return 1 for each score of at least `similar_at`, else 0."""
        return np.asarray(predictions >= positive_at(self.recipe), dtype=np.int64)

    def metrics(self, labels: Numbers, predictions: Numbers) -> dict[str, float]:
        """Return Pearson's r (NaN if all scores are equal), and F1 of scores of at least `similar_at`.

        Source: KLUE paper, section 3.2.4, "STS": Pearson's r and F1 at 3.0. Scores may also be a column (n, 1).
        """
        scores = predictions.ravel()
        matrix = confusion(self.classes(labels), self.classes(scores), 2)
        return {"pearson": pearson(labels, scores), "f1": float(f1(matrix[None])[0])}

    def resampled(self, labels: Numbers, predictions: Numbers) -> dict[str, Numbers]:
        """Return the metrics of resampled rows."""
        cells = 2 * self.classes(labels) + self.classes(predictions)
        found, counts = [], []
        for rows in drawn_rows(len(labels)):
            found.append(correlations(labels[rows], predictions[rows]))
            counts.append((cells[rows][..., None] == np.arange(4)).sum(axis=1))
        return {"pearson": np.concatenate(found), "f1": f1(np.concatenate(counts).reshape(-1, 2, 2))}

    def first_interval(self, labels: Numbers, predictions: Numbers) -> Interval:
        """Return Pearson's r with Fisher's interval."""
        return pearson_interval(labels, predictions)

    def difference(self, labels: Numbers, challenger: Numbers, champion: Numbers) -> Interval:
        """Return the difference in Pearson's r."""
        return pearson_difference(labels, challenger, champion)

    def influence(self, labels: Numbers, answers: Numbers) -> Numbers:
        """Return the influence of each row on Pearson's r; NaN if all scores or labels are equal."""
        return pearson_influence(labels, answers)

    def quality_shift(self, rows: pd.DataFrame, answers: Numbers, labels: Sequence[str], test: pd.DataFrame) -> Shift:
        """Compare the absolute errors (rank-sum test)."""
        errors = np.abs(answers - rows["label"].to_numpy())
        usual = (test["prediction"] - test["label"]).abs().to_numpy()
        chance, effect = more_in_first(errors, usual)
        return Shift("champion", f"mean error {errors.mean():.2f}", f"{usual.mean():.2f}", chance, effect)

    def further_figures(self, labels: Numbers, answers: Numbers) -> dict[str, Any]:
        """Return nothing: a regression has no figures besides the metrics."""
        return {}

    def draw(self, labels: Numbers, answers: Numbers, directory: Path) -> None:
        """Write the scatter plot."""
        # Imported here so that labels are read without matplotlib.
        from pipeline.tasks.plots import draw_scores

        draw_scores(self.recipe, labels, answers, directory / "plot.png")

    def worst_mistakes(self, test: pd.DataFrame, count: int) -> pd.DataFrame:
        """Return the rows with the largest absolute `error` (prediction minus label)."""
        errors = test["prediction"] - test["label"]
        order = errors.abs().sort_values(ascending=False, kind="stable").index[:count]
        texts = self.recipe.text_columns
        return test.assign(error=errors).loc[order, ["id", *texts, "label", "prediction", "error", "in_train"]]

    def passes(self, test: BehaviourTest, answers: Numbers) -> Numbers:
        """Return which cases pass: by the range of the score, or by its change."""
        if test.kind == "minimum":
            assert test.score is not None  # the recipe's own rule
            low, high = test.score
            scores = answers[:, 0]
            return np.asarray((scores >= low) & (scores <= high))
        if test.kind == "invariance":
            return np.asarray(np.abs(answers[:, 1] - answers[:, 0]) <= test.within)
        return moves_as_expected(test, answers)

    def watched(self, test: BehaviourTest, answers: Numbers) -> Numbers:
        """Return the scores."""
        return answers


def distances_of(cosines: Numbers) -> Numbers:
    """Return the Euclidean distances (n,), from 0 to 2, of unit vectors with these cosines."""
    return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * cosines)))


def fit_line(values: Numbers, labels: Numbers) -> ScoreLine:
    """Return the least-squares line from cosine (or distance) to score.

    Raises TrainingDivergedError if all values are equal.
    """
    if np.ptp(values) == 0:
        raise TrainingDivergedError(
            "every pair has the same cosine: the encoder has collapsed; lower the learning rate"
        )
    slope, intercept = np.polyfit(values, labels, 1)
    return ScoreLine(slope=float(slope), intercept=float(intercept))


class BiEncoderTask(RegressionTask):
    """Scores of pairs from the vectors of both texts."""

    def build(self, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> Network:
        """Return a bi-encoder, trained by the correlation of a batch."""
        # Imported here so that labels are read without torch.
        from pipeline.models.build import build_bi_encoder

        return build_bi_encoder(self.recipe, base, tokenizer)

    def combine(self, outputs: Sequence[Numbers]) -> Numbers:
        """Return the cosines of the unit vectors of both texts."""
        return np.asarray(np.prod(outputs, axis=0).sum(axis=1))

    def judge(self, outputs: Numbers, labels: Numbers) -> dict[str, float]:
        """Return the metrics of scores on the line that fits these outputs best."""
        cosines = self.decode(outputs)
        return self.metrics(labels, self.scale(cosines, fit_line(cosines, labels)))

    def calibrate(self, predict: Callable[[], tuple[Numbers, Numbers]]) -> dict[str, Any]:
        """Return the lines from cosines (`calibration`) and from distances (`euclidean`) to scores."""
        outputs, labels = predict()
        cosines = self.decode(outputs)
        by = {"calibration": cosines, "euclidean": distances_of(cosines)}
        return {name: fit_line(values, labels).model_dump() for name, values in by.items()}

    def compare_methods(
        self, labels: Numbers, raw: Numbers, found: dict[str, Interval], line: ScoreLine | None
    ) -> dict[str, Any]:
        """Return the metrics by cosine and by distance; nothing for a model of an older version without distances."""
        if line is None:
            return {}
        return {
            "similarity": {
                "cosine": found,
                "euclidean": self.intervals(labels, self.scale(distances_of(raw), line)),
            }
        }
