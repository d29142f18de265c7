"""Classification: answers are probabilities (n, labels), predictions the number of the most probable label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.metrics.arrays import Numbers
from pipeline.metrics.calibration import measure_calibration
from pipeline.metrics.classification import accuracy, class_figures, confusion, f1
from pipeline.metrics.comparison import UNSURE_ROWS, accuracy_difference, accuracy_fall
from pipeline.metrics.intervals import Interval, drawn_matrices, share_interval
from pipeline.recipes.behaviour import BehaviourTest
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.tasks.task import Shift, Task, moves_as_expected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from pipeline.models.network import Network


class ClassificationTask(Task):
    """Labels of texts or pairs."""

    def build(self, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> Network:
        """Return a classifier with one output per label, trained by cross-entropy."""
        # Imported here so that labels are read without torch.
        from pipeline.models.build import build_classifier

        names = dict(enumerate(self.recipe.labels))
        head = {
            "num_labels": len(names),
            "problem_type": "single_label_classification",
            "id2label": names,
            "label2id": {name: number for number, name in names.items()},
        }
        return build_classifier(self.recipe, base, tokenizer, head)

    def label_shift(self, new: pd.Series[float], old: pd.Series[float]) -> Shift:
        """Compare the shares of all labels (chi-squared test), and report the label whose share changed most."""
        names = self.recipe.labels
        counts = np.array([[(side == number).sum() for number in range(len(names))] for side in (new, old)])
        present = counts[:, counts.any(axis=0)]
        chance = float(stats.chi2_contingency(present, correction=False).pvalue) if len(new) else 1.0
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        changes = np.abs(shares[0] - shares[1])
        _, moved = max((change, number) for number, change in enumerate(changes.round(6)))
        found, usual = (f"{side[moved]:.1%} {names[moved]}" for side in shares)
        return Shift("labels", found, usual, chance, float(changes[moved]))

    def decode(self, outputs: Numbers) -> Numbers:
        """Return the softmax of logits (n, labels)."""
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

    def scale(self, answers: Numbers, line: ScoreLine | None) -> Numbers:
        """Return `answers`: probabilities are not calibrated."""
        return answers

    def predictions(self, answers: Numbers, labels: Sequence[str]) -> Numbers:
        """Return label numbers (n,). Labels are matched by name, because a recipe's labels may have changed."""
        numbers = {name: number for number, name in enumerate(self.recipe.labels)}
        # A removed label is never right.
        by_name = np.array([numbers.get(name, -1) for name in self.recipe.names_now(labels)])
        return np.asarray(by_name[answers.argmax(axis=1)])

    def columns(self, answers: Numbers) -> dict[str, Numbers]:
        """Return `prediction` and its `probability`."""
        return {"prediction": answers.argmax(axis=1), "probability": answers.max(axis=1)}

    def classes(self, predictions: Numbers) -> Numbers:
        """Return the numbers of the most probable labels (n,) of answers; label numbers (n,) unchanged."""
        return np.asarray(predictions.argmax(axis=1)) if predictions.ndim == 2 else predictions

    def metrics(self, labels: Numbers, predictions: Numbers) -> dict[str, float]:
        """Return accuracy and F1: that of label 1 if there are two labels, and the macro average if there are more."""
        classes = self.classes(predictions)
        matrix = confusion(labels, classes, len(self.recipe.labels))
        return {"accuracy": accuracy(labels, classes), "f1": float(f1(matrix[None])[0])}

    def resampled(self, labels: Numbers, predictions: Numbers) -> dict[str, Numbers]:
        """Return the metrics of resampled confusion matrices."""
        matrices = drawn_matrices(confusion(labels, self.classes(predictions), len(self.recipe.labels)))
        return {"accuracy": np.trace(matrices, axis1=1, axis2=2) / len(labels), "f1": f1(matrices)}

    def first_interval(self, labels: Numbers, predictions: Numbers) -> Interval:
        """Return the accuracy with Wilson's interval: a bootstrap of 40 right answers has zero width."""
        return share_interval(int((labels == self.classes(predictions)).sum()), len(labels))

    def difference(self, labels: Numbers, challenger: Numbers, champion: Numbers) -> Interval:
        """Return the difference in accuracy."""
        right, was_right = (self.classes(side) == labels for side in (challenger, champion))
        return accuracy_difference(right, was_right)

    def rows_needed(self, margin: float) -> int:
        """Return the number of rows of which `UNSURE_ROWS` rows are the share `margin`."""
        return math.ceil(UNSURE_ROWS / margin)

    def influence(self, labels: Numbers, answers: Numbers) -> Numbers:
        """Return 1 for each row that is right, else 0."""
        return np.asarray(self.classes(answers) == labels, dtype=np.float64)

    def quality_shift(self, rows: pd.DataFrame, answers: Numbers, labels: Sequence[str], test: pd.DataFrame) -> Shift:
        """Compare the accuracy with the expected one, label by label.

        So a change of the labels' shares alone is neither a rise nor a drop in quality.
        """
        names, known = np.array(self.recipe.labels)[rows["label"].to_numpy()], np.array(labels)
        right = known[answers.argmax(axis=1)] == names
        classes, predicted = (known[test[column].to_numpy()] for column in ("label", "prediction"))
        right_on_test = predicted == classes
        share, chance = accuracy_fall(right, names, right_on_test, classes)
        effect = share - float(right[np.isin(names, classes)].mean()) if chance < 1 else 0.0
        return Shift("champion", f"{right.mean():.1%} right", f"{share:.1%}", chance, effect)

    def further_figures(self, labels: Numbers, answers: Numbers) -> dict[str, Any]:
        """Return the calibration of the probabilities, and precision, recall and F1 of each label."""
        matrix = confusion(labels, self.classes(answers), len(self.recipe.labels))
        return {
            "calibration": measure_calibration(labels, answers),
            "classes": class_figures(matrix, self.recipe.labels),
        }

    def draw(self, labels: Numbers, answers: Numbers, directory: Path) -> None:
        """Write the confusion matrix and `reliability.png`."""
        # Imported here so that labels are read without matplotlib.
        from pipeline.tasks.plots import draw_confusion, draw_reliability

        draw_confusion(self.recipe, labels, answers.argmax(axis=1), directory / "plot.png")
        draw_reliability(self.recipe, measure_calibration(labels, answers), directory / "reliability.png")

    def worst_mistakes(self, test: pd.DataFrame, count: int) -> pd.DataFrame:
        """Return the most confident mistakes, with the names of labels and the `probability` of the wrong one."""
        wrong = test[test["prediction"] != test["label"]]
        worst = wrong.sort_values("probability", ascending=False, kind="stable").head(count)
        names = {column: worst[column].map(dict(enumerate(self.recipe.labels))) for column in ("label", "prediction")}
        texts = self.recipe.text_columns
        return worst.assign(**names)[["id", *texts, "label", "prediction", "probability", "in_train"]]

    def passes(self, test: BehaviourTest, answers: Numbers) -> Numbers:
        """Return which cases pass: by label, or for `direction` by its probability."""
        first = answers[:, 0].argmax(axis=1)
        if test.kind == "minimum":
            return np.asarray(first == self.recipe.labels.index(str(test.label)))
        if test.kind == "invariance":
            return np.asarray(first == answers[:, 1].argmax(axis=1))
        return moves_as_expected(test, self.watched(test, answers))

    def watched(self, test: BehaviourTest, answers: Numbers) -> Numbers:
        """Return the probabilities of the test's label, or else of the label predicted for the first input."""
        if test.label is not None:
            return np.asarray(answers[..., self.recipe.labels.index(test.label)])
        first = answers[:, 0].argmax(axis=1)
        return np.asarray(answers[np.arange(len(answers)), :, first])
