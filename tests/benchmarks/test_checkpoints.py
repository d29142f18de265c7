"""Ratio of the benchmark of uploads of checkpoints."""

from __future__ import annotations

import pytest

from benchmarks.checkpoints import summarize

pytestmark = pytest.mark.torch


def test_steps_during_an_upload_are_compared_with_their_neighbours() -> None:
    # The upload runs during the first and the last step of a round, which take once and four times as long.
    found = summarize([[0.1, 0.3, 0.1, 0.3], [0.8, 0.2, 0.2, 0.8]], [0.01, 0.02, 0.06])
    assert found["ratio"] == pytest.approx(2)
    assert found["low"] * found["high"] == pytest.approx(4)
    assert (found["step_ms"], found["start_ms"], found["uploads"]) == pytest.approx((200, 20, 3))
