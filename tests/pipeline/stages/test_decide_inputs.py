"""The decide stage on artifacts made by hand: its inputs, files and log, and when it looks for the best release."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation import champions
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.stages import decide as stage
from pipeline.stages.decide import decide
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.verdicts import find_bar, record_verdict
from tests.support.families import Family, Parrot, family, gate_table, serve
from tests.support.made_figures import evaluation

REVIEWS = load_recipe("nsmc", "embedded")
ROWS = 300


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier models are right in every row but the first, and the report is one line: neither is what is tested."""

    def parrot(recipe: Recipe, release: Artifact) -> Parrot:
        answers = np.arange(ROWS) % 2
        answers[0] = 1
        return Parrot(recipe, np.eye(2)[answers])

    def render(recipe: Recipe, run: str, decision: Decision, evaluated: Artifact, *, tracked: str | None) -> str:
        return f"{recipe.name} {run} {decision.promote} {evaluated.ref}"

    monkeypatch.setattr(champions, "load_model", parrot)
    monkeypatch.setattr(stage, "render_report", render)


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(REVIEWS, run="this-night")


def evaluated(store: Store, accuracy: float = 0.9, **options: Any) -> Family:
    """Return a model that is right in all gate rows, and has this accuracy on the test file."""
    rates = dict.fromkeys(REVIEWS.gate.behaviour, 1.0)
    labels = np.arange(ROWS) % 2
    return family(
        store,
        sample=False,
        figures=evaluation({"accuracy": accuracy, "f1": 0.9}, behaviour=rates, sample=False),
        gate=gate_table(labels, labels),
        **options,
    )


def earlier(store: Store, *accuracies: float, **options: Any) -> list[Family]:
    """Return models that were served one after the other; the last is the champion."""
    found = [family(store, sample=False, reached={"accuracy": value}, **options) for value in accuracies]
    serve(*(item.release for item in found))
    return found


def inputs_of(decided: Artifact) -> dict[str, str]:
    return {name: item.ref for name, item in decided.manifest.inputs.items()}


def test_decision_and_report_are_its_files(job: Job) -> None:
    ours = evaluated(job.store)
    decided = decide(job, ours.evaluated, None)
    decision = read_decision(decided)
    assert sorted(decided.manifest.files) == ["decision.json", "report.html"]
    assert (decided.path / "report.html").read_text() == f"nsmc this-night True {ours.evaluated.ref}"
    assert decided.manifest.figures == {"promote": True, "reason": decision.reason}
    assert decided.manifest.kind == "decide"
    assert (decision.champion, decision.best) == (None, None)
    assert inputs_of(decided) == {"evaluated": ours.evaluated.ref}


def test_fields_are_the_recipe_without_behavioural_cases(job: Job) -> None:
    decided = decide(job, evaluated(job.store).evaluated, None)
    expected = REVIEWS.model_dump(mode="json")
    assert expected.pop("behaviour")
    assert decided.manifest.fields == expected


def test_champion_and_best_are_inputs(job: Job) -> None:
    ours, (best, champion) = evaluated(job.store), earlier(job.store, 0.9, 0.8)
    decided = decide(job, ours.evaluated, champion.release)
    assert inputs_of(decided) == {
        "evaluated": ours.evaluated.ref,
        "champion": champion.release.ref,
        "best": best.release.ref,
    }
    decision = read_decision(decided)
    assert (decision.champion, decision.best) == (champion.release.ref, best.release.ref)
    assert [check.name for check in decision.checks if check.kind == "comparison"] == [
        "accuracy against the champion (+0.0033), at worst",
        "accuracy against the best before it (+0.0033), at worst",
    ]


def test_only_an_equal_question_is_not_decided_again(job: Job) -> None:
    ours, (champion,) = evaluated(job.store), earlier(job.store, 0.8)
    alone, beside = decide(job, ours.evaluated, None), decide(job, ours.evaluated, champion.release)
    assert alone.key != beside.key
    assert decide(job, ours.evaluated, champion.release).ref == beside.ref


@pytest.mark.parametrize(("accuracy", "level"), [(0.9, logging.INFO), (0.8, logging.ERROR)])
def test_refusal_is_logged_as_an_error(job: Job, accuracy: float, level: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        decided = decide(job, evaluated(job.store, accuracy).evaluated, None)
    assert decided.manifest.figures["promote"] == (accuracy > 0.88)
    (record,) = [item for item in caplog.records if item.name == "pipeline.stages.decide"]
    assert record.levelno == level
    assert record.getMessage() == f"nsmc: {decided.manifest.figures['reason']} Report: {decided.uri}/report.html"


def test_rejection_counts_in_every_later_decision(job: Job) -> None:
    ours, (first, champion) = evaluated(job.store), earlier(job.store, 0.8, 0.8)
    rejected = decide(job, ours.evaluated, champion.release)
    record_verdict(ours.trained, "rejected", by="kim", run="r", decided=rejected.ref)
    slower = REVIEWS.export.model_copy(update={"latency_ms": 6000.0})
    changes: list[dict[str, Any]] = [{}, {"title": "Another title"}, {"export": slower}]
    jobs = [replace(job, recipe=REVIEWS.model_copy(update=change)) for change in changes]
    later = [decide(item, ours.evaluated, champion.release) for item in jobs]
    # After a rollback, the first release is the champion again.
    later.append(decide(job, ours.evaluated, first.release))
    assert len({item.ref for item in later}) == 4
    for item in later:
        decision = read_decision(item)
        assert decision.promote
        bar = find_bar(item, decision)
        assert bar is not None
        assert bar.decided == rejected.ref


# --- the best release before the champion ---


@pytest.mark.parametrize("whose", ["the challenger's", "the champion's"])
def test_best_is_neither_the_challenger_nor_the_champion(job: Job, whose: str) -> None:
    ours, champion = evaluated(job.store), family(job.store, sample=False, reached={"accuracy": 0.7})
    trained = ours.trained if whose == "the challenger's" else champion.trained
    same = family(job.store, sample=False, reached={"accuracy": 0.9}, trained=trained)
    other = family(job.store, sample=False, reached={"accuracy": 0.8})
    serve(same.release, other.release, champion.release)
    assert read_decision(decide(job, ours.evaluated, champion.release)).best == other.release.ref


def test_champions_own_model_has_no_best(job: Job) -> None:
    _, champion = earlier(job.store, 0.9, 0.8)
    own = evaluated(job.store, trained=champion.trained)
    decided = decide(job, own.evaluated, champion.release)
    assert inputs_of(decided).keys() == {"evaluated", "champion"}
    assert read_decision(decided).is_champion


def test_barred_model_is_not_compared_with_the_best(job: Job) -> None:
    ours, (_, champion) = evaluated(job.store), earlier(job.store, 0.9, 0.8, cutoff="2026-01-02")
    decided = decide(job, ours.evaluated, champion.release)
    assert not decided.manifest.figures["promote"]
    assert inputs_of(decided).keys() == {"evaluated", "champion"}


def test_without_a_champion_earlier_releases_do_not_count(job: Job) -> None:
    # As after a deployment that serves nothing of this recipe.
    earlier(job.store, 0.9, 0.8)
    assert read_decision(decide(job, evaluated(job.store).evaluated, None)).best is None


def test_notes_are_logged_and_kept(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    unreadable, champion = earlier(job.store, 0.9, 0.8)
    shutil.rmtree(unreadable.trained.path)
    decision = read_decision(decide(job, evaluated(job.store).evaluated, champion.release))
    (note,) = decision.notes
    assert unreadable.release.ref in note
    warned = [item.getMessage() for item in caplog.records if item.levelno == logging.WARNING]
    assert f"nsmc: {note}" in warned
