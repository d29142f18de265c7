"""Augmentation of the pairs of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import RecipeError
from pipeline.training.pair_augmentation import BOTH, Mixing
from tests.support.small_pipeline import open_road, small_recipe

pytestmark = pytest.mark.torch

CLS, SEP = 2, 3


def pairs(count: int, length: int = 6) -> list[dict[str, Any]]:
    """Return pairs whose texts consist of one unique token each; the score is the number of the pair."""
    made = []
    for number in range(count):
        texts = (np.array([CLS, *[token] * (length - 2), SEP], np.int32) for token in (100 + number, 500 + number))
        made.append({**dict(zip(BOTH, texts, strict=True)), "label": number / count * 5})
    return made


def owners(row: Any, name: str) -> list[int]:
    """Return the pairs from which the text of a row comes."""
    base = 100 if name == BOTH[0] else 500
    ids = [int(token) - base for token in row[name] if token not in (CLS, SEP)]
    return list(dict.fromkeys(ids))


def test_strangers_are_scored_lowest_and_the_rest_stays() -> None:
    rows = pairs(20)
    mixed = Mixing(left_out=0.0, strangers=0.25, joined=0.0, lowest=0.0, max_length=64, seed=7)(rows)
    changed = [number for number in range(20) if owners(mixed[number], BOTH[1]) != [number]]
    assert len(changed) == 5
    for number, (row, before) in enumerate(zip(mixed, rows, strict=True)):
        assert row[BOTH[0]] is before[BOTH[0]]
        assert row["label"] == (0.0 if number in changed else before["label"])


def test_joined_pair_has_both_texts_and_mean_score() -> None:
    rows = pairs(20)
    mixed = Mixing(left_out=0.0, strangers=0.0, joined=0.5, lowest=0.0, max_length=64, seed=7)(rows)
    joined = [row for row in mixed if len(owners(row, BOTH[0])) == 2]
    assert len(joined) == 10
    for row in joined:
        one, other = owners(row, BOTH[0])
        assert owners(row, BOTH[1]) == [one, other]
        assert row["label"] == pytest.approx((rows[one]["label"] + rows[other]["label"]) / 2)
        for name in BOTH:
            assert (row[name][0], row[name][-1], list(row[name]).count(CLS), list(row[name]).count(SEP)) == (
                CLS,
                SEP,
                1,
                1,
            )


def test_tokens_are_left_out_but_never_all() -> None:
    rows = pairs(200, length=12)
    mixed = Mixing(left_out=0.3, strangers=0.0, joined=0.0, lowest=0.0, max_length=64, seed=7)(rows)
    for row, before in zip(mixed, rows, strict=True):
        assert row["label"] == before["label"]
        for name in BOTH:
            assert (row[name][0], row[name][-1]) == (CLS, SEP)
            assert owners(row, name) == owners(before, name)
    left = sum(len(row[name]) - 2 for row in mixed for name in BOTH) / (2 * 200 * 10)
    assert 0.66 < left < 0.74
    one_word = pairs(50, length=3)
    assert all(
        len(row[name]) == 3
        for row in Mixing(left_out=0.9, strangers=0.0, joined=0.0, lowest=0.0, max_length=64, seed=7)(one_word)
        for name in BOTH
    )


def test_what_would_be_too_long_is_not_joined() -> None:
    rows = pairs(8, length=6)
    for longest, changed in ((9, False), (10, True)):
        mixed = Mixing(left_out=0.0, strangers=0.0, joined=1.0, lowest=0.0, max_length=longest, seed=7)(rows)
        assert any(len(row[BOTH[0]]) > 6 for row in mixed) == changed


def test_the_same_batch_is_mixed_alike_and_another_otherwise() -> None:
    mixing, rows = Mixing(left_out=0.0, strangers=0.3, joined=0.3, lowest=0.0, max_length=64, seed=7), pairs(20)

    def texts(found: Any) -> list[bytes]:
        return [row[name].tobytes() for row in found for name in BOTH]

    assert texts(mixing(rows)) == texts(mixing(pairs(20)))
    shuffled = rows[::-1]
    assert texts(mixing(shuffled)[::-1]) != texts(mixing(rows))
    assert mixing(rows[:1]) == rows[:1]


def test_training_is_mixed_and_nothing_before_it(tmp_path: Any) -> None:
    recipe = small_recipe("klue-sts", train__strangers=0.2, train__joined=0.5)
    road = open_road(recipe, tmp_path, train=300, test=40)
    plain = road.with_recipe(small_recipe("klue-sts"))
    assert road.tokenized.ref == plain.tokenized.ref
    assert road.trained.manifest.figures["validation"] != plain.trained.manifest.figures["validation"]


def test_one_text_has_no_pair() -> None:
    with pytest.raises(RecipeError, match="must be 0 except for bi-encoders"):
        small_recipe("nsmc", train__joined=0.1)
