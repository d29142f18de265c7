"""Comparison of the service of two checkouts: ratios and their intervals."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.checkouts.service import ratio, summarize


def test_interval_is_over_the_starts() -> None:
    found = ratio([[0.1, 0.3], [0.0, 0.0], [0.1, 0.1]])
    # Student's t for two degrees of freedom: 4.3027; the means 0.2, 0 and 0.1 have a standard deviation of 0.1.
    assert found["ratio"] == pytest.approx(2.718281828**0.1)
    assert found["high"] / found["ratio"] == pytest.approx(2.718281828 ** (4.3027 * 0.1 / 3**0.5), rel=1e-4)
    assert found["low"] * found["high"] == pytest.approx(found["ratio"] ** 2)


def test_checkouts_are_compared_by_rate_and_cpu_time() -> None:
    def run(rate: float, cores: float) -> dict[str, Any]:
        return {"sentences_per_second": rate, "cores": {"service": cores}, "errors": {"500": 1}}

    found = summarize([[(run(90, 1), run(100, 2))], [(run(99, 1), run(110, 2))]])
    assert found["sentences per second"]["ratio"] == pytest.approx(0.9)
    assert found["sentences per CPU second"]["ratio"] == pytest.approx(1.8)
    assert (found["here"], found["there"], found["errors"]) == (94.5, 105, 4)
