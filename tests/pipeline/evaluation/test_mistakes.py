"""Mistakes: worst first, with the fields that a person needs to understand them."""

from __future__ import annotations

import pandas as pd

from pipeline.evaluation.error_analysis import COUNT, worst_mistakes
from pipeline.recipes.loading import load_recipe


def test_the_most_confident_mistake_of_a_classification_comes_first() -> None:
    test = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "text": ["좋다", "나쁘다", "글쎄", "최고"],
            "label": [1, 0, 1, 1],
            "prediction": [1, 1, 0, 0],
            "probability": [0.99, 0.6, 0.7, 0.95],
            "in_train": [False, False, True, False],
        }
    )
    found = worst_mistakes(load_recipe("nsmc", "embedded"), test)
    assert [row["id"] for row in found] == ["d", "c", "b"]
    assert found[0] == {
        "id": "d",
        "text": "최고",
        "label": "positive",
        "prediction": "negative",
        "probability": 0.95,
        "in_train": False,
    }


def test_score_errors_in_both_directions_rank_by_size() -> None:
    count = COUNT + 5
    test = pd.DataFrame(
        {
            "id": [str(number) for number in range(count)],
            "text": "하나",
            "text_pair": "둘",
            "label": 2.0,
            "prediction": [2.0 + (-1) ** number * number / 10 for number in range(count)],
            "in_train": False,
        }
    )
    found = worst_mistakes(load_recipe("klue-sts", "embedded"), test)
    assert [row["id"] for row in found] == [str(number) for number in reversed(range(5, count))]
    assert found[0]["error"] > 0 > found[1]["error"]
    assert found[0]["text_pair"] == "둘"
