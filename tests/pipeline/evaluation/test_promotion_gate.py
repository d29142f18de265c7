"""The decision of the gate on figures computed by hand (comparisons: test_compare, stage: stages/test_decide)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.promotion_gate import compare
from pipeline.evaluation.rivals import Rivals
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import Check, RivalName, SampleCheck
from pipeline.store.decisions import Decision, Score
from tests.support.made_figures import estimate
from tests.support.verdicts import judged, with_margin, won_and_lost

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")


def failures(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


@pytest.fixture
def release(store: Store) -> Artifact:
    with store.draft() as draft:
        return store.publish(draft, "release", "nsmc", "0" * 16, run="night", inputs={}, fields={}, figures={})


# --- thresholds on the test file and of the behavioural cases ---

METRICS = [
    (REVIEWS, "accuracy", 0.865, "accuracy"),
    (REVIEWS, "f1", 0.865, "F1"),
    (PAIRS, "pearson", 0.47, "Pearson r"),
    (PAIRS, "f1", 0.5, "F1"),
]


@pytest.mark.parametrize(("recipe", "metric", "floor", "name"), METRICS)
def test_floor_just_below_refuses_and_reached_promotes(recipe: Recipe, metric: str, floor: float, name: str) -> None:
    below, above = math.nextafter(floor, 0.0), math.nextafter(floor, 1.0)
    assert judged(recipe, test={metric: floor}).promote
    assert judged(recipe, test={metric: above}).promote
    refused = judged(recipe, test={metric: below})
    assert not refused.promote
    assert failures(refused) == [f"{name} on new texts of the test file"]
    assert refused.reason == f"Refused: {name} on new texts of the test file is {floor:.4f}, below {floor:g}."


def test_metric_without_threshold_is_refused_whatever_its_value() -> None:
    gate = REVIEWS.gate.model_copy(update={"floors": {"accuracy": 0.8}})
    refused = judged(REVIEWS.model_copy(update={"gate": gate}), test={"accuracy": 1.0, "f1": 1.0})
    assert not refused.promote
    assert failures(refused) == ["F1 on new texts of the test file"]
    assert "the recipe has no threshold for it (gate.floors.f1); `saebyeok propose-floors`" in refused.reason


@pytest.mark.parametrize(("recipe", "metric", "floor", "name"), METRICS)
def test_thresholds_apply_to_texts_that_train_lacks(recipe: Recipe, metric: str, floor: float, name: str) -> None:
    below = math.nextafter(floor, 0.0)
    assert not judged(recipe, test={metric: 1.0}, new_texts={metric: below}).promote
    assert judged(recipe, test={metric: below}, new_texts={metric: floor}).promote


@pytest.mark.parametrize(
    ("recipe", "capability", "bound"),
    [(recipe, *item) for recipe in (REVIEWS, PAIRS) for item in recipe.gate.behaviour.items()],
)
def test_behaviour_just_below_refuses_and_reached_promotes(recipe: Recipe, capability: str, bound: float) -> None:
    below, above = math.nextafter(bound, 0.0), math.nextafter(bound, 1.0)
    assert judged(recipe, behaviour={capability: bound}).promote
    assert judged(recipe, behaviour={capability: above}).promote
    refused = judged(recipe, behaviour={capability: below})
    assert not refused.promote
    assert failures(refused) == [f"share of correct {capability} cases"]
    assert refused.reason == f"Refused: share of correct {capability} cases is {bound:.4f}, below {bound:g}."


@pytest.mark.parametrize("recipe", [REVIEWS, PAIRS], ids=lambda recipe: recipe.name)
def test_figures_without_a_value_are_refused_each(recipe: Recipe) -> None:
    for metric in recipe.metrics:
        decision = judged(recipe, test={metric: math.nan})
        assert not decision.promote
        assert len(failures(decision)) == 1
        bound = recipe.gate.floors[metric]
        assert decision.reason.endswith(
            "on new texts of the test file has no value, for example because all answers are equal "
            f"(at least {bound:g} is needed)."
        )
    for capability in recipe.gate.behaviour:
        assert failures(judged(recipe, behaviour={capability: math.nan})) == [f"share of correct {capability} cases"]


def test_checks_hold_figure_bound_and_interval_in_order() -> None:
    rates = {name: (95 - number) / 100 for number, name in enumerate(REVIEWS.gate.behaviour)}
    decision = judged(REVIEWS, test={"accuracy": 0.9, "f1": 0.25}, behaviour=rates)
    assert [(item.kind, item.name, item.value, item.bound, item.passed) for item in decision.checks] == [
        ("floor", "accuracy on new texts of the test file", 0.9, 0.865, True),
        ("floor", "F1 on new texts of the test file", 0.25, 0.865, False),
        ("behaviour", "share of correct negation cases", 0.95, 0.65, True),
        ("behaviour", "share of correct intensifiers cases", 0.94, 0.8, True),
        ("behaviour", "share of correct typos cases", 0.93, 0.7, True),
        ("behaviour", "share of correct names cases", 0.92, 0.9, True),
        ("behaviour", "share of correct emoji cases", 0.91, 0.9, True),
    ]
    for check in decision.checks:
        assert check.estimate is not None
        assert check.estimate.model_dump() == estimate(check.value)
        assert check.miss is None


def test_recipe_without_behavioural_tests_needs_none() -> None:
    recipe = REVIEWS.model_copy(update={"gate": REVIEWS.gate.model_copy(update={"behaviour": {}})})
    decision = judged(recipe)
    assert decision.promote
    assert decision.reason == (
        "Promoted: accuracy on new texts of the test file is 1.0000 (threshold 0.865), "
        "F1 on new texts of the test file is 1.0000 (threshold 0.865); "
        "there is no champion yet."
    )


# --- the verdict and its sentence ---


def passed_comparison(rival: RivalName) -> Check:
    return compare(with_margin(REVIEWS, 0.02), *won_and_lost(10, 4, 300), rival)


def test_decision_names_release_best_and_notes(release: Artifact) -> None:
    best = replace(release, ref="release/nsmc/1/1")
    rivals = Rivals(pd.DataFrame(), np.zeros(0), best=best, notes=("One was lost.", "Another, too."))
    decision = judged(REVIEWS, passed_comparison("champion"), champion=release, rivals=rivals)
    assert decision.champion == release.ref
    assert decision.best == "release/nsmc/1/1"
    assert decision.notes == ("One was lost.", "Another, too.")
    assert (judged(REVIEWS).champion, judged(REVIEWS).best, judged(REVIEWS).notes) == (None, None, ())
    assert judged(REVIEWS, rivals=Rivals(pd.DataFrame(), np.zeros(0))).best is None


def test_decision_keeps_the_figures_of_all_compared_models() -> None:
    scores = (Score(model="challenger", ref="train/nsmc/1/1", value=0.9, held_out=1.0),)
    assert judged(REVIEWS, scores=scores).scores == scores


def test_reason_of_a_promotion_names_each_comparison(release: Artifact) -> None:
    compared = [passed_comparison("champion"), passed_comparison("best")]
    decision = judged(REVIEWS, *compared, test={"accuracy": 0.91}, champion=release)
    assert decision.promote
    assert decision.checks[-2:] == tuple(compared)
    assert decision.reason == (
        "Promoted: accuracy on new texts of the test file is 0.9100 (threshold 0.865), "
        "F1 on new texts of the test file is 1.0000 (threshold 0.865); "
        "all 5 behavioural bounds are met; "
        "accuracy against the champion (+0.0200), at worst +0.0000 (margin 0.02); "
        "accuracy against the best before it (+0.0200), at worst +0.0000 (margin 0.02)."
    )


def test_reason_without_comparison_says_why_there_is_none(release: Artifact) -> None:
    assert judged(REVIEWS).reason.endswith("; all 5 behavioural bounds are met; there is no champion yet.")
    own = judged(REVIEWS, champion=release)
    assert own.reason.endswith("; all 5 behavioural bounds are met; it is the champion's own model.")
    assert own.is_champion
    compared = judged(REVIEWS, passed_comparison("champion"), champion=release)
    assert "champion's own" not in compared.reason
    assert "no champion yet" not in compared.reason


def test_reason_names_every_miss_and_nothing_else() -> None:
    missed = SampleCheck(value=0.0, bound=1.0, passed=False)
    decision = judged(REVIEWS, missed, test={"f1": 0.5}, behaviour={"names": 0.25})
    assert decision.reason == (
        "Refused: F1 on new texts of the test file is 0.5000, below 0.865; "
        "share of correct names cases is 0.2500, below 0.9; "
        "it was trained on the shipped sample, and the champion on real data."
    )


@pytest.mark.parametrize("sound", list(product([True, False], repeat=3)), ids=str)
def test_one_failed_check_of_any_kind_refuses(sound: tuple[bool, bool, bool], release: Artifact) -> None:
    floor, behaviour, comparison = sound
    against = compare(with_margin(REVIEWS, 0.02), *won_and_lost(0, 0 if comparison else 90, 300), "champion")
    decision = judged(
        REVIEWS,
        against,
        test={} if floor else {"accuracy": 0.8},
        behaviour={} if behaviour else {"negation": 0.6},
        champion=release,
    )
    assert decision.promote == all(sound)
    kinds = [check.kind for check in decision.checks if not check.passed]
    assert kinds == [kind for kind, good in zip(("floor", "behaviour", "comparison"), sound, strict=True) if not good]


def test_reason_says_where_the_test_file_is_the_samples() -> None:
    sample = load_recipe("nsmc", "embedded", sample=True)
    decision = judged(sample, test={"accuracy": math.nextafter(0.87, 0.0)})
    assert decision.reason == "Refused: accuracy on new texts of the sample's test file is 0.8700, below 0.87."
    assert judged(sample, test={"accuracy": 0.87}).promote
