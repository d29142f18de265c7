"""The task of a recipe."""

from __future__ import annotations

from pipeline.recipes.kinds.pair_classification import PairClassification
from pipeline.recipes.kinds.pair_regression import BiEncoderRegression, CrossEncoderRegression
from pipeline.recipes.kinds.task_kind import TaskKind
from pipeline.recipes.kinds.text_classification import TextClassification
from pipeline.recipes.kinds.text_regression import TextRegression
from pipeline.recipes.schema import Recipe
from pipeline.tasks.classification import ClassificationTask
from pipeline.tasks.regression import BiEncoderTask, RegressionTask
from pipeline.tasks.task import Task

#: Tasks by kind. Kinds that differ only in their inputs share one.
TASKS: dict[type[TaskKind], type[Task]] = {
    TextClassification: ClassificationTask,
    PairClassification: ClassificationTask,
    TextRegression: RegressionTask,
    CrossEncoderRegression: RegressionTask,
    BiEncoderRegression: BiEncoderTask,
}


def task_of(recipe: Recipe) -> Task:
    """Return the task of a recipe."""
    return TASKS[type(recipe.task)](recipe)
