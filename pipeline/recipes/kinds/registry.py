"""Look-up of a kind of task by the fields of a recipe or a release card."""

from __future__ import annotations

from pipeline.recipes.kinds.pair_classification import PairClassification
from pipeline.recipes.kinds.pair_regression import BiEncoderRegression, CrossEncoderRegression
from pipeline.recipes.kinds.task_kind import TaskKind
from pipeline.recipes.kinds.text_classification import TextClassification
from pipeline.recipes.kinds.text_regression import TextRegression

#: All kinds by `kind`, `inputs` and `objective`.
KINDS: dict[tuple[str, str, str | None], TaskKind] = {
    (found.kind, found.inputs, found.objective): found
    for found in (
        TextClassification(),
        PairClassification(),
        CrossEncoderRegression(),
        BiEncoderRegression(),
        TextRegression(),
    )
}


def kind_of(kind: str, inputs: str, objective: str | None) -> TaskKind:
    """Return the kind with these names. Raises ValueError if `objective` does not fit `kind` and `inputs`."""
    if found := KINDS.get((kind, inputs, objective)):
        return found
    if all(objective != other for _, reads, other in KINDS if reads == inputs):
        raise ValueError("`model.objective` (cross-encoder or bi-encoder) is required for pairs and only for pairs")
    able = " or ".join(other for other, reads, learns in KINDS if (reads, learns) == (inputs, objective))
    raise ValueError(f"`model.objective` = {objective} is only for `kind` = {able}; change one of the two")


def metric_name(metric: str) -> str:
    """Return the name of a metric in sentences, such as F1 for `f1`."""
    return next(kind.metric_names[metric] for kind in KINDS.values() if metric in kind.metric_names)
