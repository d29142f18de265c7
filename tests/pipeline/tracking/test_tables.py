"""Results at Weights & Biases: always the report's figures, texts only when enabled."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.job import Job
from pipeline.stages.validate import validate
from pipeline.store.decisions import read_decision
from pipeline.store.figures import DecisionFigures, EvaluationFigures
from pipeline.tracking.runs import tracked
from pipeline.tracking.tables import show
from tests.support.small_pipeline import Road
from tests.support.wandb_server import HostedRun, WandbServer

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("compiled_templates")]


def told(job: Job, server: WandbServer, road: Road, *, texts: bool = False) -> HostedRun:
    """The run with the evaluation and decision of `road`."""
    there = replace(job, settings=job.settings.model_copy(update={"wandb_texts": texts}))
    # Runs of their own, if the stages have not run yet.
    evaluated, decided = road.evaluated, road.decided
    with tracked(there, "shown", {}) as tracker:
        show(tracker, "evaluate", EvaluationFigures.read(evaluated), evaluated.path)
        show(tracker, "decide", DecisionFigures.read(decided), decided.path)
        assert tracker.active
    return server.find_run("nsmc-shown")


def tables(run: HostedRun) -> dict[str, list[dict[str, object]]]:
    """Return every table of a run by name, each row as a dictionary."""
    found = {}
    for name, content in run.files.items():
        if name.endswith(".table.json"):
            document = json.loads(content)
            rows = [dict(zip(document["columns"], row, strict=True)) for row in document["data"]]
            found[name.removeprefix("media/table/").rsplit("_", 2)[0]] = rows
    return found


@pytest.fixture
def job(make_job: Callable[..., Job], reviews: Road) -> Job:
    return make_job(reviews.recipe)


def test_report_figures_become_tables_and_pictures(job: Job, wandb_online: WandbServer, reviews: Road) -> None:
    run = told(job, wandb_online, reviews)
    found, figures = tables(run), reviews.evaluated.manifest.figures
    accuracy = next(row for row in found["evaluate/metrics"] if (row["rows"], row["metric"]) == ("test", "accuracy"))
    assert {name: accuracy[name] for name in ("value", "low", "high")} == figures["test"]["accuracy"]
    assert len(found["evaluate/slices"]) == len(figures["slices"])
    assert {row["capability"] for row in found["evaluate/behaviour"]} == set(figures["behaviour"])
    assert len(found["evaluate/calibration"]) == len(figures["calibration"]["curve"])
    decision = read_decision(reviews.decided)
    assert [row["check"] for row in found["decide/checks"]] == [check.name for check in decision.checks]
    assert [row["passed"] for row in found["decide/checks"]] == [check.passed for check in decision.checks]
    pictures = {Path(name).name.split("_")[0] for name in run.files if name.endswith(".png")}
    assert pictures == {"plot", "reliability"}


def test_mistakes_are_logged_only_when_enabled(job: Job, wandb_online: WandbServer, reviews: Road) -> None:
    mistakes = reviews.evaluated.read_json("mistakes.json")
    asked = reviews.evaluated.read_json("behaviour.json")
    quiet = told(job, wandb_online, reviews)
    sent = wandb_online.everything()
    assert not [item for item in mistakes if item["text"] in sent]
    assert not {"evaluate/mistakes", "evaluate/behaviour_failures"} & set(tables(quiet))
    (page,) = [content.decode() for name, content in quiet.files.items() if name.endswith(".html")]
    assert read_decision(reviews.decided).why in html.unescape(page)
    cases = [text for item in asked for case in item["asked"] for text in case]
    assert not [text for text in cases if text in html.unescape(page)]
    assert "Texts are omitted here" in page
    wandb_online.runs.clear()
    loud = told(job, wandb_online, reviews, texts=True)
    assert [row["text"] for row in tables(loud)["evaluate/mistakes"]] == [item["text"] for item in mistakes]
    assert len(tables(loud)["evaluate/behaviour_failures"]) == len(asked) > 0
    (page,) = [content.decode() for name, content in loud.files.items() if name.endswith(".html")]
    assert mistakes[0]["text"] in page


def test_data_gate_rules_table_contains_no_texts(
    job: Job, wandb_online: WandbServer, reviews: Road, tmp_path: Path
) -> None:
    from pipeline.sample import write_sample

    made = validate(job, write_sample(tmp_path / "sample"))
    found = tables(wandb_online.find_run("nsmc-validate"))
    findings = made.read_json("validation.json")["findings"]
    assert [row["rule"] for row in found["validate/rules"]] == [item["rule"] for item in findings]
    assert {row["kind"] for row in found["validate/overlap"]} == set(made.manifest.figures["overlap"])
    sent = wandb_online.everything()
    rows = reviews.rows["train"]["text"]
    assert not [text for text in rows if len(text) > 12 and text in sent]
