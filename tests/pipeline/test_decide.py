"""Decide: every way in which the gate says yes or no, and what it leaves to read."""

from __future__ import annotations

import io
import logging
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from pipeline.artifacts import Artifact
from pipeline.champions import Best
from pipeline.decide import FEWEST, compare, decide, make_decision
from pipeline.errors import ArtifactError
from pipeline.metrics import paired_difference
from pipeline.model import load_trained
from pipeline.recipe import Recipe, load_recipe
from pipeline.releases import Check, Decision, DeploymentLog, read_decision
from pipeline.tokenize import tokenize
from pipeline.train import train
from tests.releases import make_artifact
from tests.served import linked, own_copy, release_of, release_that_reached, republished, serve, without_numbers
from tests.tiny import Road, small_recipe

pytestmark = pytest.mark.torch

LOW, HIGH = 0.05, 0.99
REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")


def held_to(road: Road, floor: float, margin: float = 0.05, behaviour: float = 0.0, **floors: float) -> Road:
    """The same road with every floor at `floor` and every behavioural bound at `behaviour`."""
    gate = gate_of(road.recipe, floor, margin, behaviour, **floors)
    changed = Road(replace(road.job, recipe=road.recipe.model_copy(update={"gate": gate})), road.rows)
    # What was made before is found again.
    vars(changed).update({name: value for name, value in vars(road).items() if isinstance(value, Artifact)})
    return changed


def gate_of(recipe: Recipe, floor: float, margin: float, behaviour: float = 0.0, **floors: float) -> Any:
    return recipe.gate.model_copy(
        update={
            "floors": dict.fromkeys(recipe.metrics, floor) | floors,
            "behaviour": dict.fromkeys(recipe.gate.behaviour, behaviour),
            "margin": margin,
        }
    )


def decide_on(road: Road, champion: Artifact | None, evaluated: Artifact | None = None) -> Decision:
    return read_decision(decide(road.job, evaluated or road.evaluated, champion))


def of_kind(decision: Decision, kind: str) -> list[Check]:
    return [check for check in decision.checks if check.kind == kind]


def answered(evaluated: Artifact, answers: Any, *, labels: Any = None, **changes: Any) -> Artifact:
    """The same evaluation with other answers to the gate rows, and other labels of them where given."""
    table = pd.read_parquet(evaluated.path / "gate.parquet").assign(prediction=answers)
    content = io.BytesIO()
    (table if labels is None else table.assign(label=labels)).to_parquet(content, index=False)
    return republished(evaluated, files={"gate.parquet": content.getvalue()}, **changes)


@pytest.fixture(scope="module")
def untaught(reviews: Road) -> Road:
    """A model of the same reviews that has hardly moved from where it began."""
    road = reviews.with_recipe(small_recipe("nsmc", train__learning_rate=1e-7, train__epochs=1, train__seed=3))
    _ = reviews.evaluated
    return road


# --- floors ---


def test_a_model_below_a_floor_is_refused_in_a_sentence(reviews: Road, caplog: pytest.LogCaptureFixture) -> None:
    road = held_to(reviews, HIGH)
    with caplog.at_level(logging.INFO):
        decided = decide(road.job, road.evaluated, None)
    decision = read_decision(decided)
    value = road.evaluated.figures["test"]["accuracy"]["value"]
    assert not decision.promote
    assert decision.reason.startswith(f"Refused: accuracy on the sample's test file is {value:.4f}, below 0.99; F1 on")
    first = decision.checks[0]
    assert (first.value, first.bound, first.passed) == (value, HIGH, False)
    assert decided.figures == {"promote": False, "reason": decision.reason}
    (record,) = [item for item in caplog.records if item.name == "pipeline.decide"]
    # Loud, and with the address of the report.
    assert record.levelno == logging.ERROR
    assert decision.reason in record.getMessage()
    assert f"{decided.uri}/report.html" in record.getMessage()


def test_one_floor_of_two_is_enough_to_refuse(reviews: Road) -> None:
    decision = decide_on(held_to(reviews, LOW, f1=HIGH), None)
    assert not decision.promote
    assert [check.passed for check in of_kind(decision, "floor")] == [True, False]
    assert "accuracy" not in decision.reason


def test_a_floor_that_is_just_reached_is_reached(reviews: Road) -> None:
    floors = {name: reviews.evaluated.figures["test"][name]["value"] for name in reviews.recipe.metrics}
    assert decide_on(held_to(reviews, LOW, **floors), None).promote


def test_without_a_champion_floors_and_behaviour_alone_decide(pairs: Road, caplog: pytest.LogCaptureFixture) -> None:
    road = held_to(pairs, LOW)
    with caplog.at_level(logging.INFO):
        decision = decide_on(road, None)
    assert decision.promote
    assert decision.champion is None
    assert re.fullmatch(
        r"Promoted: Pearson r on the sample's test file is 0\.\d{4} \(floor 0\.05\), "
        r"F1 on the sample's test file is 0\.\d{4} \(floor 0\.05\); "
        r"all 6 behavioural bounds are met; there is no champion yet\.",
        decision.reason,
    )
    assert not [item for item in caplog.records if item.levelno >= logging.ERROR]


def test_a_figure_without_a_value_is_refused_and_can_be_read_again(pairs: Road) -> None:
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan}
    figures = pairs.evaluated.figures | {"test": pairs.evaluated.figures["test"] | {"pearson": nothing}}
    evaluated = republished(pairs.evaluated, figures=figures)
    decided = decide(held_to(pairs, LOW).job, evaluated, None)
    decision = read_decision(decided)
    assert not decision.promote
    assert decision.reason.startswith("Refused: Pearson r on the sample's test file has no value")
    assert math.isnan(decision.checks[0].value)
    assert decision.checks[1].passed
    assert "Refused" in (decided.path / "report.html").read_text(encoding="utf-8")


# --- behaviour ---


def test_behaviour_below_its_bound_refuses(reviews: Road) -> None:
    figure = reviews.evaluated.figures["behaviour"]["negation"]["rate"]
    road = held_to(reviews, LOW)
    gate = road.recipe.gate
    bounds = gate.behaviour | {"negation": figure["value"] + 0.001}
    recipe = road.recipe.model_copy(update={"gate": gate.model_copy(update={"behaviour": bounds})})
    decision = decide_on(Road(replace(road.job, recipe=recipe), road.rows), None, road.evaluated)
    assert not decision.promote
    assert [check.name for check in decision.checks if not check.passed] == ["share of negation cases passed"]
    assert decision.reason == (
        f"Refused: share of negation cases passed is {figure['value']:.4f}, below {bounds['negation']:g}."
    )


def test_behaviour_that_just_reaches_its_bound_is_enough(pairs: Road) -> None:
    road = held_to(pairs, LOW)
    figures = pairs.evaluated.figures["behaviour"]
    bounds = {name: figure["rate"]["value"] for name, figure in figures.items()}
    recipe = road.recipe.model_copy(update={"gate": road.recipe.gate.model_copy(update={"behaviour": bounds})})
    decision = decide_on(Road(replace(road.job, recipe=recipe), road.rows), None, road.evaluated)
    assert decision.promote, decision.reason
    assert len(of_kind(decision, "behaviour")) == len(bounds) == 6
    assert "all 6 behavioural bounds are met" in decision.reason


def test_a_recipe_without_behavioural_tests_needs_none(reviews: Road) -> None:
    road = held_to(reviews, LOW)
    gate = road.recipe.gate.model_copy(update={"behaviour": {}})
    recipe = road.recipe.model_copy(update={"gate": gate})
    evaluated = republished(reviews.evaluated, figures=reviews.evaluated.figures | {"behaviour": {}})
    decision = decide_on(Road(replace(road.job, recipe=recipe), road.rows), None, evaluated)
    assert decision.promote
    assert "behavioural" not in decision.reason


# --- the champion ---


def test_the_champions_own_model_is_not_held_against_itself(reviews: Road) -> None:
    champion = release_of(reviews.trained)
    decision = decide_on(held_to(reviews, LOW), champion)
    assert decision.promote
    assert decision.is_champion
    assert decision.champion == champion.ref
    assert decision.reason.endswith("it is the champion's own model.")
    assert not of_kind(decision, "comparison")


def test_the_champions_own_model_is_still_held_to_its_floors(reviews: Road) -> None:
    assert not decide_on(held_to(reviews, HIGH), release_of(reviews.trained)).promote


def test_a_model_worse_than_the_champion_is_refused(reviews: Road, untaught: Road) -> None:
    decision = decide_on(held_to(untaught, 0.0), release_of(reviews.trained))
    (against,) = of_kind(decision, "comparison")
    gate = pd.read_parquet(untaught.evaluated.path / "gate.parquet")
    theirs = load_trained(reviews.recipe, reviews.trained).answer(gate).argmax(axis=1)
    wanted = paired_difference(reviews.recipe, gate["label"].to_numpy(), gate["prediction"].to_numpy(), theirs)
    assert all(check.passed for check in of_kind(decision, "floor"))
    assert not decision.promote
    assert not against.passed
    assert against.estimate is not None
    assert against.estimate.model_dump() == pytest.approx(wanted)
    assert against.value == against.estimate.low < against.bound == -0.05
    assert decision.reason.startswith("Refused: accuracy against the champion (")


def test_a_model_no_worse_than_the_champion_is_promoted(reviews: Road, untaught: Road) -> None:
    decision = decide_on(held_to(reviews, LOW), release_of(untaught.trained))
    assert decision.promote
    assert not decision.is_champion
    assert all(check.passed for check in decision.checks)
    assert of_kind(decision, "comparison")[0].value > -0.05
    assert re.search(
        r"accuracy against the champion \(\+0\.\d{4}\), at worst [+-]0\.\d{4} \(margin 0\.05\)", decision.reason
    )


def test_a_champion_does_not_save_a_model_below_its_floor(reviews: Road, untaught: Road) -> None:
    decision = decide_on(held_to(reviews, HIGH), release_of(untaught.trained))
    assert not decision.promote
    assert [check.passed for check in of_kind(decision, "floor")] == [False, False]
    assert of_kind(decision, "comparison")[0].passed


def test_a_comparison_without_a_value_is_refused(pairs: Road) -> None:
    # A champion that answers every pair alike has no correlation, and nothing is known to be as good as it.
    calibration = pairs.trained.figures["calibration"] | {"slope": 0.0}
    constant = republished(pairs.trained, figures=pairs.trained.figures | {"calibration": calibration})
    decision = decide_on(held_to(pairs, LOW), release_of(constant))
    (against,) = of_kind(decision, "comparison")
    assert not decision.promote
    assert math.isnan(against.value)
    assert "Refused: Pearson r against the champion has no value, as where" in decision.reason


def test_a_challenger_that_answers_every_pair_alike_is_refused(pairs: Road) -> None:
    evaluated = answered(pairs.evaluated, 2.5)
    decision = decide_on(held_to(pairs, LOW), release_of(republished(pairs.trained)), evaluated)
    assert not decision.promote
    assert math.isnan(of_kind(decision, "comparison")[0].value)


def test_the_sample_never_replaces_real_data(reviews: Road, untaught: Road) -> None:
    validated = republished(untaught.validated, figures=untaught.validated.figures | {"sample": False})
    tokenized = republished(untaught.tokenized, inputs=linked(validated=validated))
    trained = republished(untaught.trained, inputs=linked(tokenized=tokenized))
    decision = decide_on(held_to(reviews, LOW), release_of(trained))
    assert decision.reason == "Refused: it was trained on the shipped sample, and the champion on real data."
    assert not decision.promote


def dated(road: Road, cutoff: str | None) -> Artifact:
    """The champion that this road would have made, with data up to `cutoff`."""
    validated = republished(road.validated, figures=road.validated.figures | {"cutoff": cutoff})
    tokenized = republished(road.tokenized, inputs=linked(validated=validated))
    return release_of(republished(road.trained, inputs=linked(tokenized=tokenized)))


@pytest.mark.parametrize(
    ("ours", "theirs", "refused"),
    [
        ("2015-08-05", "2015-08-06", "its newest data are of 2015-08-05, and the champion knows those of 2015-08-06"),
        (None, "2015-08-06", "no data that arrived is in it, and the champion knows those of 2015-08-06"),
        ("2015-08-06", "2015-08-06", ""),
        ("2015-08-07", "2015-08-06", ""),
        ("2015-08-06", None, ""),
        (None, None, ""),
    ],
)
def test_older_data_never_overtake_the_champion(
    reviews: Road, untaught: Road, ours: str | None, theirs: str | None, refused: str
) -> None:
    validated = republished(reviews.validated, figures=reviews.validated.figures | {"cutoff": ours})
    inputs = {name: item.model_dump() for name, item in reviews.evaluated.manifest.inputs.items()}
    evaluated = republished(reviews.evaluated, inputs=inputs | linked(validated=validated))
    decision = decide_on(held_to(reviews, LOW), dated(untaught, theirs), evaluated)
    assert decision.promote == (not refused), decision.reason
    assert refused in decision.reason


def test_a_champion_of_pairs_is_compared_by_its_scores(pairs: Road) -> None:
    # The same model under another name: the difference is nothing, on any resample.
    decision = decide_on(held_to(pairs, LOW), release_of(republished(pairs.trained)))
    assert decision.promote
    assert of_kind(decision, "comparison")[0].value == pytest.approx(0.0, abs=1e-3)


def test_a_champion_of_another_length_answers_in_its_own(reviews: Road) -> None:
    # A champion trained at 16 tokens is asked at 16 tokens, whatever the recipe says tonight.
    short = reviews.with_recipe(small_recipe("nsmc", model__max_length=16, train__epochs=1))
    decision = decide_on(held_to(reviews, LOW), release_of(short.trained))
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    theirs = load_trained(short.recipe, short.trained).answer(gate).argmax(axis=1)
    sides = (gate["label"].to_numpy(), gate["prediction"].to_numpy(), theirs)
    assert f"({paired_difference(reviews.recipe, *sides)['value']:+.4f})" in decision.checks[-1].name


def broken_champions(road: Road) -> dict[str, Artifact]:
    gone = release_of(republished(road.trained))
    shutil.rmtree(road.job.store.open(gone.manifest.inputs["trained"].ref).path)
    cut = republished(road.trained)
    (cut.path / "model" / "model.safetensors").write_bytes(b"cut")
    unknown = republished(road.trained, fields={})
    return {
        "no such model": gone,
        "cut": release_of(cut),
        "no fields": release_of(unknown),
        "no numbers": release_of(without_numbers(road.trained)),
        "no input": make_artifact(road.job.store, "release", "nsmc", {}),
    }


@pytest.mark.parametrize("how", ["no such model", "cut", "no fields", "no input", "no numbers"])
def test_a_champion_that_cannot_be_read_stops_the_gate(how: str, reviews: Road) -> None:
    champion = broken_champions(reviews)[how]
    with pytest.raises(ArtifactError, match=rf"the champion {champion.ref} cannot be read.*roll back") as caught:
        decide_on(held_to(reviews, LOW), champion)
    # A gate that cannot compare must not let through, and trying again does not mend it.
    assert not caught.value.retryable


# --- the best before the champion ---


@pytest.fixture
def own(reviews: Road, tmp_path: Path) -> Road:
    """The reviews in a store of this test, for things to be deployed in."""
    return held_to(own_copy(reviews, tmp_path), LOW)


def test_the_best_release_before_the_champion_is_compared_with_too(own: Road) -> None:
    best, champion = release_that_reached(own, 0.9), release_that_reached(own, 0.7)
    for release in (best, champion):
        serve(release)
    evaluated = answered(own.evaluated, own_answers(own), inputs=other_night(own))
    decision = decide_on(own, champion, evaluated)
    assert decision.promote, decision.reason
    assert (decision.champion, decision.best, decision.notes) == (champion.ref, best.ref, ())
    first, second = of_kind(decision, "comparison")
    assert "against the champion" in first.name
    assert "against the best before it" in second.name


def test_an_earlier_release_that_cannot_be_read_is_named_and_stops_nothing(own: Road) -> None:
    lost, champion = release_that_reached(own, 0.9), release_that_reached(own, 0.7)
    for release in (lost, champion):
        serve(release)
    shutil.rmtree(own.job.store.open(str(lost.input_ref("trained"))).path)
    decided = decide(own.job, answered(own.evaluated, own_answers(own), inputs=other_night(own)), champion)
    decision = read_decision(decided)
    assert decision.promote
    assert decision.best is None
    (note,) = decision.notes
    assert lost.ref in note
    assert lost.ref in (decided.path / "report.html").read_text(encoding="utf-8")


def own_answers(road: Road) -> Any:
    return pd.read_parquet(road.evaluated.path / "gate.parquet")["prediction"].to_numpy()


def other_night(road: Road) -> dict[str, Any]:
    """Inputs of an evaluation of the same weights, trained another night."""
    inputs = {name: item.model_dump() for name, item in road.evaluated.manifest.inputs.items()}
    return inputs | linked(trained=republished(road.trained))


def slow_decline(road: Road, nights: int) -> Iterator[tuple[Artifact, Artifact]]:
    """A night each: a trained model and its evaluation, which is wrong about one gate row more than the last.

    The same weights with another bias, which calls one text more negative; all were rightly called what they were.
    """
    gate = pd.read_parquet(road.evaluated.path / "gate.parquet")
    weights = load((road.trained.path / "model/model.safetensors").read_bytes())
    chances = load_trained(road.recipe, road.trained).answer(gate)
    margins = np.log(chances[:, 1] / chances[:, 0])
    steps = np.sort(margins[margins > 0])
    thresholds = [0.0, *((steps[:-1] + steps[1:]) / 2)]
    for threshold in thresholds[:nights]:
        bias = weights["classifier.bias"].clone()
        bias[0] += threshold
        file = {"model/model.safetensors": save(weights | {"classifier.bias": bias})}
        trained = republished(road.trained, files=file)
        inputs = {name: item.model_dump() for name, item in road.evaluated.manifest.inputs.items()}
        answers, labels = (margins > threshold).astype(int), (margins > 0).astype(int)
        value = float((answers == labels).mean())
        figures = road.evaluated.figures | {"gate": {"accuracy": {"value": value, "low": value, "high": value}}}
        inputs |= linked(trained=trained)
        yield trained, answered(road.evaluated, answers, labels=labels, figures=figures, inputs=inputs)


def test_thirty_small_losses_in_a_row_cannot_add_up(own: Road) -> None:
    margin, log = own.recipe.gate.margin, DeploymentLog(own.job.store)
    served, decisions, before = [], [], None
    for trained, evaluated in slow_decline(own, 30):
        decision = decide_on(own, log.champion("nsmc"), evaluated)
        decisions.append(decision)
        gate = pd.read_parquet(evaluated.path / "gate.parquet")
        labels, ours = gate["label"].to_numpy(), gate["prediction"].to_numpy()
        # Held against the night before alone, each of them would do.
        assert before is None or compare(own.recipe, labels, ours, before, "the night before").passed
        before = ours
        if decision.promote:
            served.append(evaluated.figures["gate"]["accuracy"]["value"])
            serve(release_of(trained, evaluated))
    assert served[0] - value_of(evaluated) > 2 * margin
    assert len(served) > 2
    assert served[0] - served[-1] <= margin
    refused = next(item for item in decisions if not item.promote)
    assert [check.passed for check in of_kind(refused, "comparison")] == [True, False]
    assert refused.best is not None
    assert not any(item.promote for item in decisions[len(served) :])


def value_of(evaluated: Artifact) -> float:
    return float(evaluated.figures["gate"]["accuracy"]["value"])


# --- what holds of any two models ---


def held_by(recipe: Recipe, margin: float) -> Recipe:
    """The recipe with this margin, and floors and bounds that anything reaches."""
    return recipe.model_copy(update={"gate": gate_of(recipe, 0.0, margin)})


def verdict(recipe: Recipe, *checks: Check) -> Decision:
    """The decision on a model that passes all but these checks by far."""
    perfect = {"value": 1.0, "low": 1.0, "high": 1.0}
    figures = {
        "test": dict.fromkeys(recipe.metrics, perfect),
        "behaviour": {name: {"rate": perfect} for name in recipe.gate.behaviour},
    }
    return make_decision(recipe, figures, checks, None, Best(None, ()))


#: A row each: its label, whether the challenger is right about it, and whether the champion is.
ROWS = st.tuples(st.booleans(), st.booleans(), st.booleans())
LOSSES = st.tuples(st.booleans(), st.just(False), st.sampled_from([True, True, True, False]))
BOUNDED = settings(derandomize=True, deadline=None, max_examples=100)


def sides(rows: list[tuple[bool, bool, bool]]) -> tuple[Any, Any, Any]:
    """Labels, and the answers of challenger and champion."""
    label, ours, theirs = np.array(rows).T
    return label.astype(int), (label == ours).astype(int), (label == theirs).astype(int)


@BOUNDED
@given(st.lists(LOSSES, min_size=8, max_size=40), st.lists(ROWS, max_size=8), st.floats(0.001, 0.999))
def test_a_challenger_that_is_wholly_below_the_margin_is_never_promoted(
    lost: list[tuple[bool, bool, bool]], others: list[tuple[bool, bool, bool]], share: float
) -> None:
    arrays = sides(lost + others)
    high = paired_difference(REVIEWS, *arrays)["high"]
    assume(high < 0)
    # Whatever margin there is between nothing and the upper end of the interval.
    recipe = held_by(REVIEWS, -high * share)
    check = compare(recipe, *arrays, "the champion")
    assert check.estimate is not None
    assert check.estimate.high < -recipe.gate.margin
    assert not verdict(recipe, check).promote


@BOUNDED
@given(st.lists(ROWS, min_size=1, max_size=40), st.floats(1e-3, 0.999))
def test_a_challenger_that_is_right_wherever_the_champion_is_is_never_refused(
    rows: list[tuple[bool, bool, bool]], margin: float
) -> None:
    recipe = held_by(REVIEWS, margin)
    # Of rows enough for the margin: what the next one would do is left open, and one of few is a large share.
    often = max(math.ceil(5 / (margin * len(rows))), math.ceil(FEWEST / len(rows)))
    arrays = sides([(label, ours or theirs, theirs) for label, ours, theirs in rows] * often)
    assert verdict(recipe, compare(recipe, *arrays, "the champion")).promote


@BOUNDED
@given(st.lists(ROWS, min_size=1, max_size=8), st.floats(1e-3, 0.1))
def test_on_a_handful_of_rows_nobody_is_known_to_be_as_good(rows: list[tuple[bool, bool, bool]], margin: float) -> None:
    recipe = held_by(REVIEWS, margin)
    arrays = sides([(label, theirs, theirs) for label, _, theirs in rows])
    assert not verdict(recipe, compare(recipe, *arrays, "the champion")).promote


@pytest.mark.parametrize("rows", [FEWEST - 1, FEWEST])
def test_scores_of_a_handful_of_pairs_are_not_compared(rows: int) -> None:
    recipe, scores = held_by(PAIRS, 0.5), np.linspace(0, 5, rows)
    decision = verdict(recipe, compare(recipe, scores, scores, scores, "the champion"))
    assert decision.promote == (rows == FEWEST)
    assert decision.promote or f"{rows} gate rows say too little of the champion" in decision.reason


@settings(derandomize=True, deadline=None, max_examples=4)
@given(st.lists(st.floats(0, 5, width=16), min_size=30, max_size=40, unique=True), st.integers(0, 2**16))
def test_scores_that_go_the_wrong_way_are_never_promoted_and_the_same_scores_never_refused(
    labels: list[float], seed: int
) -> None:
    truth = np.array(labels)
    champion = np.clip(truth + np.random.default_rng(seed).normal(0, 0.5, len(truth)), 0, 5)
    recipe = held_by(PAIRS, 0.5)
    against = compare(recipe, truth, 5 - champion, champion, "the champion")
    assert against.estimate is not None
    assert against.estimate.high < -0.5
    assert not verdict(recipe, against).promote
    assert verdict(recipe, compare(recipe, truth, champion.copy(), champion, "the champion")).promote


def test_the_verdict_on_a_model_that_passes_everything_is_yes() -> None:
    # What the properties above hold against: without a failed comparison nothing refuses.
    assert verdict(held_by(REVIEWS, 0.01)).promote


# --- what is left ---


def test_the_report_says_what_was_decided(reviews: Road) -> None:
    road = held_to(reviews, LOW)
    decided = decide(road.job, road.evaluated, None)
    report = (decided.path / "report.html").read_text(encoding="utf-8")
    assert "Promoted" in report
    assert f"{reviews.evaluated.figures['test']['accuracy']['value']:.4f}" in report
    assert "data:image/png;base64," in report
    assert not re.search(r"(src|href)=\"https?://", report)


def test_another_threshold_is_another_decision_about_the_same_model(reviews: Road) -> None:
    low, high = held_to(reviews, LOW), held_to(reviews, HIGH)
    yes, no = (decide(road.job, road.evaluated, None) for road in (low, high))
    assert (yes.figures["promote"], no.figures["promote"]) == (True, False)
    assert yes.key != no.key
    assert train(high.job, tokenize(high.job, high.validated)).ref == reviews.trained.ref
    assert decide(low.job, low.evaluated, None).ref == yes.ref


def test_another_champion_is_another_decision(reviews: Road, untaught: Road) -> None:
    job = held_to(reviews, LOW).job
    assert decide(job, reviews.evaluated, None).key != decide(job, reviews.evaluated, release_of(untaught.trained)).key
