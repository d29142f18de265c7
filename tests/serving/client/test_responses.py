"""The client's responses: the same types as those of the pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.recipes.kinds import task_kind
from serving.client import responses


@pytest.mark.parametrize("name", ["Kind", "Inputs", "Route", "Method"])
def test_repeated_type_is_that_of_the_pipeline(name: str) -> None:
    modules: tuple[Any, ...] = (responses, task_kind)
    ours, theirs = (getattr(module, name) for module in modules)
    assert ours == theirs
