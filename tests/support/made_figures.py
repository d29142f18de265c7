"""Figures and checks that no stage computed, for tests that publish artifacts by hand."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.store.checks import ComparisonCheck, RivalName, ThresholdCheck
from pipeline.store.figures import EvaluationFigures


def estimate(value: float) -> dict[str, float]:
    """Return a unique, recognisable interval."""
    return {"value": value, "low": value - 0.125, "high": value + 0.0625}


def evaluation(
    test: Mapping[str, float],
    *,
    new_texts: Mapping[str, float] | None = None,
    behaviour: Mapping[str, float] | None = None,
    sample: bool = True,
) -> EvaluationFigures:
    """Return an evaluation with these metrics on both splits, and these shares of passed cases by capability.

    The metrics on new texts of the test file are those on all its texts unless `new_texts` are given.
    """
    metrics, new = ({name: estimate(value) for name, value in side.items()} for side in (test, new_texts or test))
    rates = {
        name: {"rate": estimate(rate), "cases": 40, "passed": 30, "tests": ()}
        for name, rate in (behaviour or {}).items()
    }
    return EvaluationFigures(
        test=metrics,
        test_rows=1000,
        test_without_train_texts=new,
        test_without_train_texts_rows=1000,
        slices=(),
        gate=metrics,
        gate_rows=400,
        behaviour=rates,
        sample=sample,
    )


def threshold(value: float, bound: float) -> ThresholdCheck:
    """Return the check of an accuracy on the test file."""
    passed = value >= bound
    return ThresholdCheck(value=value, bound=bound, passed=passed, metric="accuracy", sample=False)


def comparison(difference: float, margin: float, *, rival: RivalName = "champion") -> ComparisonCheck:
    """Return the check of an accuracy on 400 gate rows against that of an earlier model."""
    found = estimate(difference)
    return ComparisonCheck(
        value=found["low"],
        bound=-margin,
        passed=found["low"] >= -margin,
        estimate=found,
        metric="accuracy",
        rival=rival,
        rows=400,
        fewest=30,
    )
