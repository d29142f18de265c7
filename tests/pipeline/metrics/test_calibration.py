"""Calibration of cases computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.metrics.calibration import measure_calibration


def sure_of(*confidences: float) -> Any:
    """Return probabilities (n, 2) that predict label 1 with these confidences."""
    sure = np.array(confidences)
    return np.stack([1 - sure, sure], axis=1)


def test_the_error_of_two_bins_by_hand() -> None:
    # Four at 0.95, three of them right: off by 0.2. Two at 0.55, both right: off by 0.45.
    labels = np.array([1, 1, 1, 0, 1, 1])
    found = measure_calibration(labels, sure_of(0.95, 0.95, 0.95, 0.95, 0.55, 0.55))
    assert found["ece"] == pytest.approx((4 * 0.2 + 2 * 0.45) / 6)
    assert [(item["rows"], item["accuracy"]) for item in found["curve"]] == [(2, 1.0), (4, 0.75)]
    assert [item["confidence"] for item in found["curve"]] == pytest.approx([0.55, 0.95])


def test_a_bin_is_closed_above() -> None:
    # 0.6 is nine fifteenths: the end of the ninth bin and not the start of the tenth.
    measured = measure_calibration(np.array([1]), sure_of(0.6))
    assert measured["bins"] == 15
    (found,) = measured["curve"]
    assert (found["low"], found["high"]) == pytest.approx((8 / 15, 9 / 15))


def test_confidence_beyond_one_by_rounding_is_in_the_last_bin() -> None:
    for confidence, low in ((1 + 1e-7, 14 / 15), (1.0, 14 / 15)):
        (found,) = measure_calibration(np.array([1]), sure_of(confidence))["curve"]
        assert (found["low"], found["high"]) == pytest.approx((low, low + 1 / 15))
    (found,) = measure_calibration(np.array([0]), np.zeros((1, 2)))["curve"]
    assert (found["low"], found["high"]) == pytest.approx((0.0, 1 / 15))


def test_ece_of_certain_predictions_is_the_error_rate() -> None:
    labels = np.array([1] * 80 + [0] * 20)
    assert measure_calibration(labels, sure_of(*[1.0] * 100))["ece"] == pytest.approx(0.2)


def test_an_honest_model_has_hardly_any_error() -> None:
    generator = np.random.default_rng(2)
    sure = generator.uniform(0.5, 1, 50_000)
    labels = (generator.random(50_000) < sure).astype(int)
    assert measure_calibration(labels, sure_of(*sure))["ece"] < 0.01


def test_confidence_is_that_of_the_label_foreseen_among_many() -> None:
    (found,) = measure_calibration(np.array([2, 2]), np.array([[0.1, 0.2, 0.7], [0.7, 0.2, 0.1]]))["curve"]
    assert found["confidence"] == pytest.approx(0.7)
    assert found["accuracy"] == 0.5
