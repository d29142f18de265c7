"""Output of the commands for people."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.cli.console import Session, log_to_stderr
from pipeline.cli.output import RunOutcome, print_run, print_stage
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.settings import Settings
from pipeline.stages.stage import DECIDE, EVALUATE, VALIDATE, Step
from pipeline.store.artifacts import Store
from pipeline.store.decisions import Decision, decision_lines
from tests.support.made_figures import comparison, evaluation, threshold

STAGE = {"stage": "train", "reused": False, "seconds": 3.21, "figures": {"epoch": 2}, "ref": "train/nsmc/k/1"}
DEPLOYMENT = {"stage": "deploy", "deployment": 4, "ids": {"nsmc": "nsmc-k"}}


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (STAGE | {"sample": True}, "train built in 3.2 s, on sample data"),
        (STAGE | {"sample": False}, "train built in 3.2 s"),
        (DEPLOYMENT | {"sample": True}, "deployment 4 is live, trained on sample data"),
        (DEPLOYMENT | {"sample": False}, "deployment 4 is live"),
    ],
)
def test_stage_output_names_the_sample(document: dict[str, Any], line: str, settings: Settings) -> None:
    out = io.StringIO()
    print_stage(Session(settings, out, as_json=False), document)
    assert out.getvalue().splitlines()[0] == line


def test_validation_output_names_the_data_docs(settings: Settings) -> None:
    out = io.StringIO()
    figures = {"train_rows": 60, "cutoff": None, "warnings": ["1 row was set aside"]}
    about = {"stage": "validate", "sample": False, "figures": figures, "uri": "/store/validate/nsmc/k/1"}
    print_stage(Session(settings, out, as_json=False), STAGE | about)
    assert out.getvalue().splitlines()[1:4] == [
        "  train_rows: 60",
        "  warning: 1 row was set aside",
        "data docs   /store/validate/nsmc/k/1/docs/index.html",
    ]


def test_decision_output_lists_checks_and_notes() -> None:
    decision = Decision(
        promote=False,
        champion="release/nsmc/k/1",
        best=None,
        notes=("release 2 cannot be read; it was not compared with",),
        checks=(threshold(0.83456, 0.8), comparison(0.075, 0.02)),
    )
    assert list(decision_lines(decision)) == [
        "passed      accuracy on the test file: 0.8346 against 0.8000",
        "FAILED      accuracy against the champion (+0.0750), at worst: -0.0500 against -0.0200",
        "note        release 2 cannot be read; it was not compared with",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stderr", "logged"), [(io.StringIO(), True), (Terminal(), False)])
def test_long_operations_log_their_progress_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, logged: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    for verbose in (False, True):
        log_to_stderr(verbose=verbose)
        for name in ("pipeline.progress", "pipeline.training.checkpoints"):
            assert logging.getLogger(name).isEnabledFor(logging.INFO) is (logged or verbose)
        assert logging.getLogger("pipeline.stages.evaluate").isEnabledFor(logging.INFO) is verbose


def test_run_without_thresholds_is_printed(make_job: Callable[..., Job], store: Store) -> None:
    recipe = load_recipe("nsmc", "embedded")
    recipe = recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"floors": {}})})
    with store.draft() as draft:
        figures = evaluation({"accuracy": 0.8, "f1": 0.7}).model_dump(mode="json")
        made = store.publish(draft, "evaluate", "nsmc", "0" * 16, run="r", inputs={}, fields={}, figures=figures)
    job, out = make_job(recipe), io.StringIO()
    decision = Decision(promote=False, champion=None, best=None, notes=(), checks=(threshold(0.8, 0.85),))
    steps = [Step(stage, made, 1.0, reused=False) for stage in (VALIDATE, EVALUATE, DECIDE)]
    outcome = RunOutcome(job, steps, decision)
    print_run(Session(job.settings, out, as_json=False), outcome)
    [line] = [line for line in out.getvalue().splitlines() if line.startswith("accuracy ") and "to" in line]
    assert line.split() == ["accuracy", "0.8000", "0.8000", "0.6750", "to", "0.8625", "none"]
