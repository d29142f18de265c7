"""Decide: every way in which the gate says yes or no, and what it leaves to read."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from pipeline.artifacts import Artifact
from pipeline.decide import decide
from pipeline.errors import ArtifactError
from pipeline.metrics import worst_difference
from pipeline.model import load_trained
from pipeline.releases import Decision
from pipeline.tokenize import tokenize
from pipeline.train import train
from tests.releases import make_artifact
from tests.tiny import Road, small_recipe

LOW, HIGH = 0.05, 0.99


def held_to(road: Road, floor: float, margin: float = 0.05) -> Road:
    """The same road with every floor at `floor`; what was made before is found again."""
    floors = dict.fromkeys(road.recipe.metrics, floor)
    gate = road.recipe.gate.model_copy(update={"floors": floors, "margin": margin})
    changed = Road(replace(road.job, recipe=road.recipe.model_copy(update={"gate": gate})), road.rows)
    vars(changed).update({name: value for name, value in vars(road).items() if isinstance(value, Artifact)})
    return changed


def decision_of(decided: Artifact) -> Decision:
    return Decision.model_validate_json((decided.path / "decision.json").read_bytes())


def republished(source: Artifact, **changes: Any) -> Artifact:
    """A copy of an artifact with other `fields`, `figures` or `inputs`."""
    manifest = source.manifest
    with source.store.draft() as draft:
        for name in manifest.files:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source.path / name, draft / name)
        inputs = {name: item.model_dump() for name, item in manifest.inputs.items()}
        told: dict[str, Any] = {"fields": manifest.fields, "figures": manifest.figures, "inputs": inputs} | changes
        # Another key, as of another night.
        key = f"{int(manifest.key, 16) ^ hash(json.dumps(told, default=str)) % 16**15:016x}"
        return source.store.publish(draft, manifest.kind, manifest.recipe, key, run="other", **told)


def release_of(trained: Artifact) -> Artifact:
    """A release as far as a gate looks at it."""
    inputs = {"trained": {"ref": trained.ref, "key": trained.key}}
    return make_artifact(trained.store, "release", trained.manifest.recipe, inputs)


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
    decision = decision_of(decided)
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
    recipe = small_recipe("nsmc", gate__floors={"accuracy": LOW, "f1": HIGH})
    decision = decision_of(decide(reviews.with_recipe(recipe).job, reviews.evaluated, None))
    assert not decision.promote
    assert [check.passed for check in decision.checks] == [True, False]
    assert "accuracy" not in decision.reason


def test_a_floor_that_is_just_reached_is_reached(reviews: Road) -> None:
    floors = {name: reviews.evaluated.figures["test"][name]["value"] for name in reviews.recipe.metrics}
    recipe = small_recipe("nsmc", gate__floors=floors)
    assert decision_of(decide(reviews.with_recipe(recipe).job, reviews.evaluated, None)).promote


def test_without_a_champion_the_floors_alone_decide(pairs: Road, caplog: pytest.LogCaptureFixture) -> None:
    road = held_to(pairs, LOW)
    with caplog.at_level(logging.INFO):
        decision = decision_of(decide(road.job, road.evaluated, None))
    assert decision.promote
    assert decision.champion is None
    assert re.fullmatch(
        r"Promoted: Pearson r on the sample's test file is 0\.\d{4} \(floor 0\.05\), "
        r"F1 on the sample's test file is 0\.\d{4} \(floor 0\.05\); there is no champion yet\.",
        decision.reason,
    )
    assert not [item for item in caplog.records if item.levelno >= logging.ERROR]


def test_a_figure_without_a_value_is_refused_and_can_be_read_again(pairs: Road) -> None:
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan}
    figures = pairs.evaluated.figures | {"test": pairs.evaluated.figures["test"] | {"pearson": nothing}}
    evaluated = republished(pairs.evaluated, figures=figures)
    decided = decide(held_to(pairs, LOW).job, evaluated, None)
    decision = decision_of(decided)
    assert not decision.promote
    assert decision.reason.startswith("Refused: Pearson r on the sample's test file has no value")
    assert math.isnan(decision.checks[0].value)
    assert decision.checks[1].passed
    assert "Refused" in (decided.path / "report.html").read_text(encoding="utf-8")


# --- champions ---


def test_the_champions_own_model_is_not_held_against_itself(reviews: Road) -> None:
    champion = release_of(reviews.trained)
    decision = decision_of(decide(held_to(reviews, LOW).job, reviews.evaluated, champion))
    assert decision.promote
    assert decision.champion == champion.ref
    assert decision.reason.endswith("it is the champion's own model.")
    assert len(decision.checks) == 2


def test_a_model_worse_than_the_champion_is_refused(reviews: Road, untaught: Road) -> None:
    champion = release_of(reviews.trained)
    decision = decision_of(decide(held_to(untaught, 1e-9).job, untaught.evaluated, champion))
    *floors, against = decision.checks
    gate = pd.read_parquet(untaught.evaluated.path / "gate.parquet")
    theirs = load_trained(reviews.recipe, reviews.trained).answer(gate).argmax(axis=1)
    _, worst = worst_difference(reviews.recipe, gate["label"].to_numpy(), gate["prediction"].to_numpy(), theirs)
    assert all(check.passed for check in floors if "accuracy" in check.name)
    assert not decision.promote
    assert not against.passed
    assert against.value == pytest.approx(worst)
    assert against.value < against.bound == -0.05
    assert "against the champion" in decision.reason


def test_a_model_no_worse_than_the_champion_is_promoted(reviews: Road, untaught: Road) -> None:
    decision = decision_of(decide(held_to(reviews, LOW).job, reviews.evaluated, release_of(untaught.trained)))
    assert decision.promote
    assert [check.passed for check in decision.checks] == [True, True, True]
    assert decision.checks[-1].value > -0.05
    assert "against the champion" in decision.reason


def test_the_sample_never_replaces_real_data(reviews: Road, untaught: Road) -> None:
    validated = republished(untaught.validated, figures=untaught.validated.figures | {"sample": False})
    tokenized = republished(untaught.tokenized, inputs={"validated": {"ref": validated.ref, "key": validated.key}})
    trained = republished(untaught.trained, inputs={"tokenized": {"ref": tokenized.ref, "key": tokenized.key}})
    decision = decision_of(decide(held_to(reviews, LOW).job, reviews.evaluated, release_of(trained)))
    assert not decision.promote
    assert "real data" in decision.reason


def dated(road: Road, cutoff: str | None) -> Artifact:
    """The champion that this road would have made, with data up to `cutoff`."""
    validated = republished(road.validated, figures=road.validated.figures | {"cutoff": cutoff})
    tokenized = republished(road.tokenized, inputs={"validated": {"ref": validated.ref, "key": validated.key}})
    return release_of(republished(road.trained, inputs={"tokenized": {"ref": tokenized.ref, "key": tokenized.key}}))


@pytest.mark.parametrize(
    ("ours", "theirs", "refused"),
    [
        ("2015-08-05", "2015-08-06", "(2015-08-06) to this model's (2015-08-05) is -1.0000, below 0"),
        (None, "2015-08-06", "to this model's (none that arrived)"),
        ("2015-08-06", "2015-08-06", ""),
        ("2015-08-07", "2015-08-06", ""),
        ("2015-08-06", None, ""),
    ],
)
def test_older_data_never_overtake_the_champion(
    reviews: Road, untaught: Road, ours: str | None, theirs: str | None, refused: str
) -> None:
    validated = republished(reviews.validated, figures=reviews.validated.figures | {"cutoff": ours})
    inputs = {name: item.model_dump() for name, item in reviews.evaluated.manifest.inputs.items()}
    evaluated = republished(
        reviews.evaluated, inputs=inputs | {"validated": {"ref": validated.ref, "key": validated.key}}
    )
    decision = decision_of(decide(held_to(reviews, LOW).job, evaluated, dated(untaught, theirs)))
    assert decision.promote == (not refused), decision.reason
    assert refused in decision.reason


def test_a_champion_does_not_save_a_model_below_its_floor(reviews: Road, untaught: Road) -> None:
    decision = decision_of(decide(held_to(reviews, HIGH).job, reviews.evaluated, release_of(untaught.trained)))
    assert not decision.promote
    assert [check.passed for check in decision.checks] == [False, False, True]


def test_a_champion_of_pairs_is_compared_by_its_scores(pairs: Road) -> None:
    # The same model under another name: the difference is nothing, on any resample.
    champion = release_of(republished(pairs.trained))
    decision = decision_of(decide(held_to(pairs, LOW).job, pairs.evaluated, champion))
    assert decision.promote
    assert decision.checks[-1].value == pytest.approx(0.0, abs=1e-3)


def test_a_champion_of_another_length_answers_in_its_own(reviews: Road) -> None:
    # A champion trained at 16 tokens is asked at 16 tokens, whatever the recipe says tonight.
    short = reviews.with_recipe(small_recipe("nsmc", model__max_length=16, train__epochs=1))
    decision = decision_of(decide(held_to(reviews, LOW).job, reviews.evaluated, release_of(short.trained)))
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    theirs = load_trained(short.recipe, short.trained).answer(gate).argmax(axis=1)
    value, _ = worst_difference(reviews.recipe, gate["label"].to_numpy(), gate["prediction"].to_numpy(), theirs)
    assert f"({value:+.4f})" in decision.checks[-1].name


def test_labels_are_compared_by_name(reviews: Road) -> None:
    # The same weights, whose first output is now called positive: wrong where it was right.
    turned = republished(reviews.trained, fields=reviews.trained.manifest.fields | {"labels": ["positive", "negative"]})
    decision = decision_of(decide(held_to(reviews, LOW).job, reviews.evaluated, release_of(turned)))
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    right = (gate["prediction"] == gate["label"]).mean()
    assert f"({right - (1 - right):+.4f})" in decision.checks[-1].name


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
        "no input": make_artifact(road.job.store, "release", "nsmc", {}),
    }


@pytest.mark.parametrize("how", ["no such model", "cut", "no fields", "no input"])
def test_a_champion_that_cannot_be_read_stops_the_gate(how: str, reviews: Road) -> None:
    champion = broken_champions(reviews)[how]
    with pytest.raises(ArtifactError, match=rf"the champion {champion.ref} cannot be read.*roll back") as caught:
        decide(held_to(reviews, LOW).job, reviews.evaluated, champion)
    # A gate that cannot compare must not let through, and trying again does not mend it.
    assert not caught.value.retryable


# --- what is left ---


def test_the_report_says_what_was_decided(reviews: Road) -> None:
    decided = decide(held_to(reviews, LOW).job, reviews.evaluated, None)
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
