"""The simulation of exports: at most one of 1,000 good files is refused, and bad files are detected."""

from __future__ import annotations

import pytest

from benchmarks.parity import measure

NIGHTS = 3000


@pytest.mark.parametrize("rows", [100, 1000])
def test_good_exports_are_refused_once_in_1000_runs(rows: int) -> None:
    for row in measure(NIGHTS, [rows], [0.2, 1])["cases"]:
        if row["lost"] != "all":
            # At most 3 refusals are expected; 10 have a probability of 1 in 1,000, as have 3 in the 300 runs of pairs.
            assert max(row["refused"]) <= (3 / 300 if row["recipe"] == "klue-sts" else 10 / NIGHTS), row


def test_bad_exports_are_refused() -> None:
    rows = measure(NIGHTS // 5, [1000], [10, 20])["cases"]
    assert {row["lost"] for row in rows} == {"as many as the metric may", "all", "by noise"}
    for row in rows:
        assert row["refused"][0] > (0.9 if row["precision"] == "fp16" else 0.99), row
        assert row["refused"][1] > 0.99, row
