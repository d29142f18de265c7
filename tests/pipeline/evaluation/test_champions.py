"""Whether a release solves the task of a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.evaluation.champions import is_other_kind, other_task
from pipeline.recipes.loading import load_recipe
from pipeline.store.artifacts import Store
from tests.support.families import TASK, family

REVIEWS = load_recipe("nsmc", "embedded")


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        (TASK, False),
        (TASK | {"labels": ["bad", "good"]}, False),
        (TASK | {"kind": "regression"}, True),
        (TASK | {"objective": "cross-encoder"}, True),
        # Of a damaged release, whose loading fails.
        ({}, False),
    ],
    ids=str,
)
def test_release_of_another_kind_is_recognized(store: Store, fields: dict[str, Any], other: bool) -> None:
    assert is_other_kind(REVIEWS, family(store, fields=fields).release) is other


def test_earlier_release_of_another_task_is_named(store: Store) -> None:
    check = other_task(REVIEWS, family(store, fields=TASK | {"kind": "regression"}).release, "best")
    assert check is not None
    assert check.name == "same task as an earlier release"
