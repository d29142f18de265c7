"""Mistakes: the rows on which a model was most wrongly sure, for a person to read."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipeline.recipes.schema import Recipe

#: Enough to see what they have in common, few enough to be read.
COUNT = 20


def worst_mistakes(recipe: Recipe, test: pd.DataFrame) -> list[dict[str, Any]]:
    """The most confident mistakes of a classification, or the scores that are farthest off; the worst first.

    `test` is the table of `evaluate`. Each row: `id`, `text` (and `text_pair`), `label`, `prediction` (names of
    labels, or scores), `in_train`, and `probability` or `error` (prediction minus label).
    """
    texts = [name for name in ("text", "text_pair") if name in test]
    if recipe.kind == "classification":
        wrong = test[test["prediction"] != test["label"]]
        worst = wrong.sort_values("probability", ascending=False, kind="stable").head(COUNT)
        names = {column: worst[column].map(dict(enumerate(recipe.labels))) for column in ("label", "prediction")}
        shown = worst.assign(**names)[["id", *texts, "label", "prediction", "probability", "in_train"]]
    else:
        errors = test["prediction"] - test["label"]
        order = errors.abs().sort_values(ascending=False, kind="stable").index[:COUNT]
        shown = test.assign(error=errors).loc[order, ["id", *texts, "label", "prediction", "error", "in_train"]]
    return [{str(name): value for name, value in row.items()} for row in shown.to_dict("records")]
