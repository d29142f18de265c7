"""The simulation of many nights: the comparison with the best earlier model bounds the drift."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gate_drift import HARDER, ROWS, Contender, Course, GrowingRows, measure, play
from pipeline.recipes.loading import load_recipe

NIGHTS = 120
MARGIN = load_recipe("nsmc", "embedded").gate.margin
#: A loss that passes in one of 20,000 nights: the gate's 1.645 and these 3.9 standard errors, less the margin.
BOUND = MARGIN + (3.9 - 1.645) * (0.08 / ROWS) ** 0.5
SLOW = Course("slow loss", lambda night: 0.0005 * night)


def test_slow_loss_adds_up_without_the_best_only() -> None:
    # The last model has lost 0.0595.
    alone, bounded = (measure(SLOW, rule, NIGHTS, 1) for rule in ("champion", "champion and best"))
    assert alone["worst"] > 3 * MARGIN
    assert 0 < bounded["worst"] < BOUND
    assert bounded["refused_last"] > 0.5


def test_equal_models_are_never_behind() -> None:
    found = measure(Course("equal", lambda night: 0.0), "champion", NIGHTS, 1)
    assert found["behind"] == [0.0]
    # 1 of 20 by the closed form of the margin (`test_gate_power`); 16 of 100 have a probability of 1 in 10,000.
    assert found["refused_first"] <= 0.15


def test_refused_model_is_not_live() -> None:
    series = play(Course("sudden loss", lambda night: 0.05 * (night >= 2)), "champion and best", 4, 1)
    assert series.refused == [False, False, True, True]
    assert series.live is not None
    assert series.live.quality == 0.0


def test_answers_follow_the_true_accuracy_and_stay() -> None:
    draw, rows = np.random.default_rng(1), GrowingRows()
    rows.grow(40_000, HARDER, draw)
    models = [Contender(quality, np.zeros(0, dtype=bool)) for quality in (0.0, -0.02)]
    for model in models:
        model.see(rows, draw)
    before = models[0].right.copy()
    # 3 of 10 rows are hard, so the difference is 0.7 of 0.02; its standard error is 0.0024.
    assert before.mean() - models[1].right.mean() == pytest.approx(0.014, abs=4 * 0.0024)
    rows.grow(100, 0.0, draw)
    models[0].see(rows, draw)
    assert (models[0].right[:40_000] == before).all()
    assert len(models[0].right) == 40_100
