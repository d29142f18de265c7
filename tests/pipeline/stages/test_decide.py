"""The decide stage on real models: rivals, errors, and its output."""

from __future__ import annotations

import logging
import math
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from pipeline.errors import ArtifactError
from pipeline.stages.decide import decide
from pipeline.stages.tokenize import tokenize
from pipeline.stages.train import train
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import read_decision
from pipeline.tasks.trained import load_trained
from tests.support.gate_releases import of_other_data, release_of, republished, without_numbers
from tests.support.judged import challenger, compared, decide_on, gate_rows, held_to, inputs_of, with_validation
from tests.support.small_pipeline import Road
from tests.support.tiny_releases import make_artifact
from tests.support.verdicts import difference_quantile
from tests.support.wandb_server import ENTITY, WandbServer

pytestmark = pytest.mark.torch

LOW, HIGH = 0.05, 0.99


@pytest.fixture(scope="module")
def champion(reviews: Road) -> Artifact:
    """Return a release with the same weights, trained by another run."""
    return release_of(republished(reviews.trained))


# --- the verdict and its output ---


def test_refusal_logs_error_with_report_address(reviews: Road, caplog: pytest.LogCaptureFixture) -> None:
    road = held_to(reviews, HIGH)
    with caplog.at_level(logging.INFO):
        decided = decide(road.job, road.evaluated, None)
    decision = read_decision(decided)
    value = road.evaluated.manifest.figures["test_without_train_texts"]["accuracy"]["value"]
    assert not decision.promote
    name = "accuracy on new texts of the sample's test file"
    assert decision.reason.startswith(f"Refused: {name} is {value:.4f}, below 0.99; F1 on")
    assert decided.manifest.figures == {"promote": False, "reason": decision.reason}
    (record,) = [item for item in caplog.records if item.name == "pipeline.stages.decide"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"nsmc: {decision.reason} Report: {decided.uri}/report.html"


def test_report_links_the_run_on_the_server(reviews: Road, wandb_online: WandbServer) -> None:
    # A decision that no other test reads: their reports have no links to a server.
    road = held_to(reviews, 0.06)
    decided = decide(road.job, road.evaluated, None)
    run = wandb_online.find_run("nsmc-decide")
    report = (decided.path / "report.html").read_text(encoding="utf-8")
    assert f'<a href="{wandb_online.url}/{ENTITY}/saebyeok/runs/{run.name}">' in report


def test_promotion_is_no_error(reviews: Road, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        decided = decide(held_to(reviews, LOW).job, reviews.evaluated, None)
    decision = read_decision(decided)
    assert decision.promote
    assert decided.manifest.figures == {"promote": True, "reason": decision.reason}
    assert re.fullmatch(
        r"Promoted: accuracy on new texts of the sample's test file is 0\.\d{4} \(threshold 0\.05\), "
        r"F1 on new texts of the sample's test file is 0\.\d{4} \(threshold 0\.05\); "
        r"all 5 behavioural bounds are met; there is no champion yet\.",
        decision.reason,
    )
    (record,) = [item for item in caplog.records if item.name == "pipeline.stages.decide"]
    assert record.levelno == logging.INFO


def test_figure_without_a_value_can_be_read_again(reviews: Road) -> None:
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan}
    known = reviews.evaluated.manifest.figures
    figures = known | {"test_without_train_texts": known["test_without_train_texts"] | {"accuracy": nothing}}
    decided = decide(held_to(reviews, LOW).job, republished(reviews.evaluated, figures=figures), None)
    decision = read_decision(decided)
    assert not decision.promote
    assert math.isnan(decision.checks[0].value)
    assert decision.checks[1].passed
    assert "Refused" in (decided.path / "report.html").read_text(encoding="utf-8")


def test_report_says_what_was_decided(reviews: Road) -> None:
    decided = decide(held_to(reviews, LOW).job, reviews.evaluated, None)
    report = (decided.path / "report.html").read_text(encoding="utf-8")
    assert "Promoted" in report
    assert f"{reviews.evaluated.manifest.figures['test']['accuracy']['value']:.4f}" in report
    assert "data:image/png;base64," in report
    assert not re.search(r"(src|href)=\"https?://", report)


def test_changed_threshold_gives_new_decision_same_model(reviews: Road) -> None:
    low, high = held_to(reviews, LOW), held_to(reviews, HIGH)
    yes, no = (decide(road.job, road.evaluated, None) for road in (low, high))
    assert (yes.manifest.figures["promote"], no.manifest.figures["promote"]) == (True, False)
    assert yes.key != no.key
    assert train(high.job, tokenize(high.job, high.validated)).ref == reviews.trained.ref
    assert decide(low.job, low.evaluated, None).ref == yes.ref


# --- the champion ---


def test_champions_own_model_is_held_to_floors_alone(reviews: Road) -> None:
    own = release_of(reviews.trained)
    decision = decide_on(held_to(reviews, LOW), own)
    assert decision.promote
    assert decision.is_champion
    assert decision.champion == own.ref
    assert decision.reason.endswith("it is the champion's own model.")
    assert not decide_on(held_to(reviews, HIGH), own).promote


@pytest.mark.parametrize(("wins", "losses", "promoted"), [(0, 4, True), (6, 2, True), (0, 12, False), (3, 12, False)])
def test_challenger_is_compared_with_the_champion(
    reviews: Road, champion: Artifact, wins: int, losses: int, promoted: bool
) -> None:
    rows = len(gate_rows(reviews)[0])
    decision = decide_on(held_to(reviews, LOW), champion, challenger(reviews, wins, losses))
    (against,) = compared(decision)
    assert against.estimate is not None
    assert against.estimate.value == pytest.approx((wins - losses) / rows)
    assert against.value == against.estimate.low
    assert abs(against.value - difference_quantile(wins, losses, rows, 0.05)) < 1.5 / rows
    assert (decision.promote, against.passed, against.bound) == (promoted, promoted, -0.05)
    assert (decision.champion, decision.best, decision.is_champion) == (champion.ref, None, False)


def test_another_champion_is_another_decision(reviews: Road, champion: Artifact) -> None:
    job, evaluated = held_to(reviews, LOW).job, challenger(reviews, 0, 0)
    alone, beside = decide(job, evaluated, None), decide(job, evaluated, champion)
    assert alone.key != beside.key
    assert {name: item.ref for name, item in beside.manifest.inputs.items()} == {
        "evaluated": evaluated.ref,
        "champion": champion.ref,
    }


def test_champion_of_another_length_answers_in_its_own(reviews: Road) -> None:
    # The champion reads the few tokens that it was trained with, whatever the recipe says now.
    short = republished(of_other_data(reviews.trained), fields=reviews.trained.manifest.fields | {"max_length": 8})
    gate = pd.read_parquet(reviews.evaluated.path / "gate.parquet")
    theirs = load_trained(reviews.recipe, short).answer(gate).argmax(axis=1)
    labels, ours = gate_rows(reviews)
    difference = (ours == labels).mean() - (theirs == labels).mean()
    assert difference != 0
    decision = decide_on(held_to(reviews, LOW), release_of(short))
    assert f"({difference:+.4f})" in compared(decision)[0].name


def test_sample_never_replaces_real_data(reviews: Road) -> None:
    decision = decide_on(held_to(reviews, LOW), with_validation(reviews, sample=False))
    assert decision.reason == "Refused: it was trained on the shipped sample, and the champion on real data."
    (barred,) = compared(decision)
    assert (barred.value, barred.bound, barred.estimate) == (0.0, 1.0, None)


@pytest.mark.parametrize("sample", [True, False])
def test_real_data_may_replace_anything(reviews: Road, sample: bool) -> None:
    road = held_to(reviews, LOW)
    real = replace(road.job, recipe=road.recipe.model_copy(update={"sample": False}))
    decision = read_decision(decide(real, challenger(reviews, 0, 0), with_validation(reviews, sample=sample)))
    assert decision.promote
    assert "against the champion" in decision.reason


@pytest.mark.parametrize(
    ("ours", "theirs", "days", "refused"),
    [
        (
            "2015-08-05",
            "2015-08-06",
            -1,
            "its newest data are of 2015-08-05, and the champion knows those of 2015-08-06",
        ),
        (None, "2015-08-06", math.nan, "no data that arrived is in it, and the champion knows those of 2015-08-06"),
        ("2015-08-06", "2015-08-06", 0, ""),
        ("2015-08-07", "2015-08-06", 0, ""),
        ("2015-08-06", None, 0, ""),
        (None, None, 0, ""),
    ],
)
def test_older_data_never_overtake_the_champion(
    reviews: Road, ours: str | None, theirs: str | None, days: float, refused: str
) -> None:
    validated = republished(reviews.validated, figures=reviews.validated.manifest.figures | {"cutoff": ours})
    inputs = inputs_of(reviews.evaluated, validated=validated)
    decision = decide_on(
        held_to(reviews, LOW),
        with_validation(reviews, cutoff=theirs),
        republished(reviews.evaluated, inputs=inputs),
    )
    (check,) = compared(decision)
    if refused:
        assert decision.reason == f"Refused: {refused}."
        assert (check.name, check.bound, check.passed) == ("days of data ahead of the champion's", 0.0, False)
        assert check.value == pytest.approx(days, nan_ok=True)
    else:
        assert decision.promote, decision.reason
        assert check.name.startswith("accuracy against the champion")


def test_older_model_never_returns_on_the_same_data(reviews: Road) -> None:
    road = held_to(reviews, LOW, margin=0.5)
    # A night with nothing new finds the model of an earlier night again; another one was promoted since.
    newer = release_of(republished(reviews.trained))
    decision = decide_on(road, newer)
    assert not decision.promote
    assert decision.reason == (
        f"Refused: it was trained before the champion on the same data ({reviews.trained.ref}); to serve it again, "
        "roll back to its deployment (saebyeok rollback)."
    )
    (check,) = compared(decision)
    assert (check.name, check.value, check.bound) == ("trained after the champion", 0.0, 1.0)
    # A model that was trained later on the same data is compared, and so is an older one on other data.
    assert decide_on(road, newer, challenger(reviews, 0, 0)).promote
    assert decide_on(road, release_of(of_other_data(reviews.trained))).promote


def with_fields(road: Road, **fields: object) -> Artifact:
    """Return a champion of other data whose training had these fields."""
    return release_of(republished(of_other_data(road.trained), fields=road.trained.manifest.fields | fields))


@pytest.mark.parametrize(
    ("fields", "known", "wanted"),
    [
        ({"labels": ["bad", "good"]}, "bad, good", "negative, positive"),
        ({"labels": ["negative", "neutral", "positive"]}, "negative, neutral, positive", "negative, positive"),
        ({"kind": "regression"}, "regression of texts", "classification of texts"),
        ({"objective": "cross-encoder"}, "classification of pairs", "classification of texts"),
    ],
)
def test_other_task_or_labels_need_a_person(reviews: Road, fields: dict[str, object], known: str, wanted: str) -> None:
    # All its answers would count as wrong, so a coin would win.
    decision = decide_on(held_to(reviews, LOW), with_fields(reviews, **fields))
    assert (decision.promote, decision.needs_person) == (False, True)
    assert decision.reason == (
        f"Refused: the champion knows another task ({known}) than this model ({wanted}), so they cannot be compared; "
        "set `renamed_labels` in the recipe if labels were only renamed, otherwise a person must approve the model."
    )
    # A person cannot waive a missed threshold.
    assert not decide_on(held_to(reviews, HIGH), with_fields(reviews, **fields)).needs_person


def test_renamed_labels_are_compared(reviews: Road) -> None:
    road = held_to(reviews, LOW)
    renamed = road.recipe.model_copy(update={"renamed_labels": {"bad": "negative", "good": "positive"}})
    champion = with_fields(reviews, labels=["bad", "good"])
    decision = read_decision(decide(replace(road.job, recipe=renamed), reviews.evaluated, champion))
    assert decision.promote
    (check,) = compared(decision)
    assert check.estimate is not None
    assert check.estimate.value == 0.0
    assert not decide_on(road, champion).promote


def broken_champions(road: Road) -> dict[str, Artifact]:
    trained = of_other_data(road.trained)
    gone = release_of(republished(trained))
    shutil.rmtree(road.job.store.open(gone.manifest.inputs["trained"].ref).path)
    cut = republished(trained)
    (cut.path / "model" / "model.safetensors").write_bytes(b"cut")
    return {
        "no such model": gone,
        "cut": release_of(cut),
        "no fields": release_of(republished(trained, fields={})),
        "no numbers": release_of(without_numbers(trained)),
        "no input": make_artifact(road.job.store, "release", "nsmc", {}),
    }


@pytest.mark.parametrize("how", ["no such model", "cut", "no fields", "no input", "no numbers"])
def test_unreadable_champion_stops_the_gate(how: str, reviews: Road) -> None:
    champion = broken_champions(reviews)[how]
    with pytest.raises(ArtifactError, match=rf"the champion {champion.ref} cannot be read.*roll back") as caught:
        decide_on(held_to(reviews, LOW), champion)
    # A gate that cannot compare must not approve the model, and a retry does not help.
    assert not caught.value.retryable
