"""Calibration of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.metrics.arrays import Numbers

#: Bins of equal width over 0 to 1, as in Guo et al. 2017.
BINS = 15


def measure_calibration(labels: Numbers, probabilities: Numbers) -> dict[str, Any]:
    """Return the expected calibration error of probabilities (n, labels) and its reliability curve.

    `ece` is the mean over rows of |accuracy - mean confidence| of the row's bin. Confidence is the probability of
    the predicted label, in `BINS` bins of equal width, each open below and closed above (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", equation 3). `curve` has `low`, `high`, `rows`, `confidence` and
    `accuracy` of each bin that contains rows.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    curve = [_bin(place, confidence[places == place], right[places == place]) for place in np.unique(places)]
    error = sum(item["rows"] * abs(item["accuracy"] - item["confidence"]) for item in curve) / len(labels)
    return {"ece": float(error), "bins": BINS, "curve": curve}


def _bin(place: int, confidence: Numbers, right: Numbers) -> dict[str, Any]:
    return {
        "low": float(place / BINS),
        "high": float((place + 1) / BINS),
        "rows": len(right),
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
    }
