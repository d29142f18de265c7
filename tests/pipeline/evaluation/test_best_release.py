"""The stage `decide` and the best release before the champion, which stops a series of small losses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load, save

from pipeline.evaluation.promotion_gate import compare
from pipeline.stages.decide import decide
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.tasks.trained import load_trained
from tests.support.gate_releases import (
    of_other_data,
    own_copy,
    release_of,
    republished,
    serve,
    without_numbers,
)
from tests.support.judged import answered, challenger, compared, decide_on, held_to, inputs_of, with_validation
from tests.support.small_pipeline import Road

pytestmark = pytest.mark.torch

LOW = 0.05


@pytest.fixture
def own(reviews: Road, tmp_path: Path) -> Road:
    """Return the reviews in a separate store, in which this test deploys releases."""
    return held_to(own_copy(reviews, tmp_path), LOW)


def served(road: Road, count: int, worst: Callable[[Artifact], Artifact] = of_other_data) -> list[Artifact]:
    """Return releases of equal models that were served in turn; the first has the weights of `worst`."""
    releases = [release_of(how(road.trained)) for how in (worst, *[of_other_data] * (count - 1))]
    for release in releases:
        serve(release)
    return releases


def test_best_release_before_the_champion_is_compared_with_too(own: Road) -> None:
    best, _, champion = served(own, 3)
    evaluated = challenger(own, 0, 0)
    decided = decide(own.job, evaluated, champion)
    decision = read_decision(decided)
    assert decision.promote, decision.reason
    assert (decision.champion, decision.best, decision.notes) == (champion.ref, best.ref, ())
    assert [check.name.partition(" (")[0] for check in compared(decision)] == [
        "accuracy against the champion",
        "accuracy against the best before it",
    ]
    # As an input it is retained with the decision, and another best release gives another decision.
    assert decided.manifest.inputs["best"].ref == best.ref


@pytest.mark.parametrize("whose", ["the challenger", "the champion"])
def test_model_served_before_is_not_compared_with_itself(own: Road, whose: str) -> None:
    evaluated = challenger(own, 0, 0)
    models = {name: of_other_data(own.trained) for name in ("the champion", "another")}
    models["the challenger"] = own.job.store.open(str(evaluated.input_ref("trained")))
    for name in (whose, "another", "the champion"):
        release = release_of(models[name])
        serve(release)
        if name == "another":
            other = release
    assert decide_on(own, release, evaluated).best == other.ref


def test_champions_own_model_asks_nobody(own: Road) -> None:
    served(own, 2)
    decision = decide_on(own, release_of(own.trained))
    assert (decision.best, compared(decision)) == (None, [])


def test_barred_model_asks_nobody(own: Road) -> None:
    served(own, 2)
    decision = decide_on(own, with_validation(own, sample=False))
    assert (decision.best, len(compared(decision))) == (None, 1)


@pytest.mark.parametrize("how", [without_numbers, lambda trained: republished(trained, fields={})])
def test_best_that_cannot_answer_is_named_and_stops_nothing(
    how: Callable[[Artifact], Artifact], own: Road, caplog: pytest.LogCaptureFixture
) -> None:
    lost, champion = served(own, 2, worst=how)
    decided = decide(own.job, challenger(own, 0, 0), champion)
    decision = read_decision(decided)
    assert decision.promote
    assert (decision.best, len(compared(decision))) == (None, 1)
    (note,) = decision.notes
    assert note.startswith(f"the earlier release {lost.ref} cannot be read (")
    assert f"nsmc: {note}" in [item.getMessage() for item in caplog.records if item.levelno == logging.WARNING]
    assert lost.ref in (decided.path / "report.html").read_text(encoding="utf-8")
    assert "best" not in decided.manifest.inputs


def slow_decline(road: Road, nights: int, lost: int) -> Iterator[tuple[Artifact, Artifact]]:
    """Return a trained model and its evaluation per run, each wrong on `lost` more gate rows than the previous one.

    They have the same weights with another bias, which predicts more texts as negative; the first makes no mistakes.
    """
    gate = pd.read_parquet(road.evaluated.path / "gate.parquet")
    weights = load((road.trained.path / "model/model.safetensors").read_bytes())
    chances = load_trained(road.recipe, road.trained).answer(gate)
    margins = np.log(chances[:, 1] / chances[:, 0])
    steps = np.sort(margins[margins > 0])
    thresholds = [0.0, *((steps[:-1] + steps[1:]) / 2)[lost - 1 :: lost]]
    for threshold in thresholds[:nights]:
        bias = weights["classifier.bias"].clone()
        bias[0] += threshold
        trained = republished(
            road.trained, files={"model/model.safetensors": save(weights | {"classifier.bias": bias})}
        )
        answers, labels = (margins > threshold).astype(int), (margins > 0).astype(int)
        value = float((answers == labels).mean())
        figures = road.evaluated.manifest.figures | {
            "gate": {"accuracy": {"value": value, "low": value, "high": value}}
        }
        inputs = inputs_of(road.evaluated, trained=trained)
        yield trained, answered(road.evaluated, answers, labels=labels, figures=figures, inputs=inputs)


def test_small_losses_in_a_row_cannot_add_up(own: Road) -> None:
    margin, log = own.recipe.gate.margin, DeploymentLog(own.job.store)
    reached, decisions, before = [], [], None
    for trained, evaluated in slow_decline(own, nights=9, lost=2):
        decision = decide_on(own, log.champion("nsmc"), evaluated)
        decisions.append(decision)
        gate = pd.read_parquet(evaluated.path / "gate.parquet")
        labels, ours = gate["label"].to_numpy(), gate["prediction"].to_numpy()
        # Compared with the previous run alone, each of them would pass.
        assert before is None or compare(own.recipe, labels, ours, before, "champion").passed
        before, value = ours, float(evaluated.manifest.figures["gate"]["accuracy"]["value"])
        reached.append(value)
        if decision.promote:
            serve(release_of(trained, evaluated))
    served = [value for value, decision in zip(reached, decisions, strict=True) if decision.promote]
    assert reached[0] - reached[-1] > 1.5 * margin
    assert len(served) > 2
    assert served[0] - served[-1] <= margin
    refused = decisions[len(served)]
    assert [check.passed for check in compared(refused)] == [True, False]
    assert refused.best is not None
    assert not any(item.promote for item in decisions[len(served) :])
