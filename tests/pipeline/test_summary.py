"""What a command says to people."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pipeline.console import Session
from pipeline.settings import Settings
from pipeline.summary import print_stage

STAGE = {"stage": "train", "reused": False, "seconds": 3.21, "figures": {"epoch": 2}, "ref": "train/nsmc/k/1"}
DEPLOYMENT = {"stage": "deploy", "deployment": 4, "releases": {"nsmc": "release/nsmc/k/1"}}


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (STAGE | {"sample": True}, "train made in 3.2 s, on sample data"),
        (STAGE | {"sample": False}, "train made in 3.2 s"),
        (DEPLOYMENT | {"sample": True}, "deployment 4 is live, trained on sample data"),
        (DEPLOYMENT | {"sample": False}, "deployment 4 is live"),
    ],
)
def test_a_stage_says_that_it_is_of_the_sample(document: dict[str, Any], line: str, settings: Settings) -> None:
    out = io.StringIO()
    print_stage(Session(settings, out, as_json=False), document)
    assert out.getvalue().splitlines()[0] == line
