"""The tasks of the nightly DAG: stages, their artifacts, and when a task continues, is skipped or fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import AbsentDataError, RejectedDataError, ServiceError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.stages.running import CALLS, run_deploy
from pipeline.stages.stage import DECIDE, STAGES, VALIDATE
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.verdicts import change_hold, model_of, record_verdict
from tests.dags.conftest import RUN, make_decided
from tests.support.hook import Hook
from tests.support.tiny_releases import TinyModel, make_artifact, make_decision

if TYPE_CHECKING:
    from airflow.sdk import Context

InTask = Callable[..., "Context"]
#: The argument by which each kind of artifact is passed on.
ARGUMENTS = {
    "validate": "validated",
    "tokenize": "tokenized",
    "train": "trained",
    "evaluate": "evaluated",
    "decide": "decided",
}


def validates(monkeypatch: pytest.MonkeyPatch, call: Callable[[Job], Artifact]) -> None:
    """Replace the validate stage by `call`; `tests/dags/test_runs.py` has real data."""
    monkeypatch.setitem(CALLS, VALIDATE, call)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stage_task_runs_its_stage_on_its_inputs(
    nightly: ModuleType, in_task: InTask, store: Store, monkeypatch: pytest.MonkeyPatch, stage: Any
) -> None:
    in_task()
    given = {ARGUMENTS[kind]: make_artifact(store, kind, "nsmc", {}).ref for kind in reversed(stage.inputs)}
    seen: list[str] = []

    def call(job: Job, *inputs: Artifact) -> Artifact:
        seen.extend([job.recipe.name, job.run, *(artifact.manifest.kind for artifact in inputs)])
        return make_decided(store) if stage.kind == "decide" else make_artifact(store, stage.kind, "nsmc", {})

    monkeypatch.setitem(CALLS, stage, call)
    ref = getattr(nightly, stage.name).function(recipe="nsmc", **given)
    assert ref == store.refs(stage.kind, "nsmc")[0]
    assert seen == ["nsmc", RUN, *stage.inputs]


def test_unknown_parameter_fails_at_once(nightly: ModuleType, in_task: InTask) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    in_task(epoch=3, aproval=True)
    with pytest.raises(AirflowFailException, match="unknown parameter: aproval, epoch; known: recipes, profile, "):
        nightly.validate.function("nsmc")


def test_recipe_that_was_not_chosen_is_skipped(nightly: ModuleType, in_task: InTask) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    in_task(recipes=["klue-sts"])
    with pytest.raises(AirflowSkipException, match="not among the chosen recipes: klue-sts"):
        nightly.validate.function("nsmc")


@pytest.mark.parametrize(
    ("first", "ending", "text"),
    [
        (RUN, "AirflowFailException", "^line 3 breaks a rule$"),
        ("manual__before", "AirflowSkipException", "same as in run manual__before, .*: line 3 breaks a rule"),
    ],
)
def test_rejected_data_fail_first_run_skip_next(
    nightly: ModuleType, in_task: InTask, monkeypatch: pytest.MonkeyPatch, first: str, ending: str, text: str
) -> None:
    from airflow.sdk import exceptions

    def call(job: Job) -> Artifact:
        raise RejectedDataError("line 3 breaks a rule", ref="rejected-data/nsmc/k/a", run=first)

    validates(monkeypatch, call)
    context = in_task()
    with pytest.raises(getattr(exceptions, ending), match=text):
        nightly.validate.function("nsmc")
    # The data docs are linked in both cases.
    assert context["ti"].pushed[nightly.DataDocsLink.xcom_ref] == "rejected-data/nsmc/k/a"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sample", "ending"),
    [(None, "AirflowSkipException"), (True, "AirflowSkipException"), (False, "AirflowFailException")],
)
def test_recipe_without_data_is_skipped_unless_its_own_data_are_live(
    nightly: ModuleType,
    in_task: InTask,
    store: Store,
    classifier: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    sample: bool | None,
    ending: str,
) -> None:
    from airflow.sdk import exceptions

    def call(job: Job) -> Artifact:
        raise AbsentDataError("/data has the files of another recipe")

    validates(monkeypatch, call)
    in_task()
    if sample is not None:
        live = classifier.publish(store, "nsmc", key="0" * 16, sample=sample).ref
        DeploymentLog(store).append({"nsmc": live}, run=RUN, reason="for a test", after=0)
    # Data of a live model have disappeared, which nobody would notice if the task were skipped every night.
    with pytest.raises(getattr(exceptions, ending), match=r"^/data has the files of another recipe$"):
        nightly.validate.function("nsmc")


def test_decision_logs_the_address_of_its_report(
    nightly: ModuleType,
    in_task: InTask,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080")
    in_task()
    decided = make_decided(store, promote=False)
    monkeypatch.setitem(CALLS, DECIDE, lambda job, evaluated: decided)
    evaluated = make_artifact(store, "evaluate", "nsmc", {})
    with caplog.at_level(logging.INFO):
        assert nightly.decide.function("nsmc", evaluated.ref) == decided.ref
    assert f"report: http://127.0.0.1:8080/saebyeok/{decided.ref}/report.html" in caplog.messages


def test_arrivals_that_are_gone_alert_once(
    nightly: ModuleType, in_task: InTask, store: Store, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_task()
    for run, gone in (("before", ["2015-08-01"]), (RUN, ["2015-08-01", "2015-08-02"]), (RUN, ["2015-08-02"])):
        with store.draft() as draft:
            (draft / "rows.txt").write_text("rows", encoding="utf-8")
            made = store.publish(
                draft, "validate", "nsmc", "0" * 16, run=run, inputs={}, fields={"gone": gone}, figures={}
            )
        validates(monkeypatch, lambda job, made=made: made)  # type: ignore[misc]
        nightly.validate.function("nsmc")
    # The first was reused, and the third says nothing new.
    (body,) = hook.bodies
    assert (body["event"], body["recipe"], body["run"]) == ("arrivals_gone", "nsmc", RUN)
    assert body["dates"] == ["2015-08-02"]
    assert body["text"].startswith(
        "nsmc: 1 day of arrivals that the champion was trained on has no file any more: 2015"
    )
    assert body["data_docs"].endswith("/docs/index.html")


# --- gate ---


def test_gate_lets_a_promoted_model_through(nightly: ModuleType, in_task: InTask, store: Store, hook: Hook) -> None:
    in_task()
    assert nightly.gate.function("nsmc", make_decided(store).ref) is True
    # Also if an earlier run decided: its end says nothing about the model.
    assert nightly.gate.function("nsmc", make_decided(store, run="before").ref) is True
    assert hook.bodies == []


def test_gate_alerts_on_the_first_refusal(
    nightly: ModuleType, in_task: InTask, store: Store, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080")
    context = in_task()
    decided = make_decided(store, promote=False)
    assert nightly.gate.function("nsmc", decided.ref) is False
    reason = "Refused: accuracy on the test file is 0.8571, below 0.9."
    report = f"http://127.0.0.1:8080/saebyeok/{decided.ref}/report.html"
    noted = context["ti"].pushed  # type: ignore[attr-defined]
    assert noted == {"run_note": "nsmc refused: Accuracy on the test file is 0.8571, below 0.9."}
    assert hook.bodies == [
        {
            "event": "refused",
            "text": f"nsmc: the new model was refused, the current model stays live. {reason} Report: {report}",
            "recipe": "nsmc",
            "run": RUN,
            "reason": reason,
            "report": report,
        }
    ]


def test_gate_skips_a_refusal_of_an_earlier_run(nightly: ModuleType, in_task: InTask, store: Store, hook: Hook) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    in_task(approval=True)
    decided = make_decided(store, promote=False, run="before")
    with pytest.raises(
        AirflowSkipException, match="nothing changed since run before, which ended with: Refused: accuracy on"
    ):
        nightly.gate.function("nsmc", decided.ref)
    assert hook.bodies == []


def test_gate_skips_a_barred_model_unless_asked_again(
    nightly: ModuleType, in_task: InTask, store: Store, hook: Hook
) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    decided = make_decided(store)
    for verdict, said in (
        ("rejected", r"^kim rejected it in run before \(bad\)\. To be asked again, .*`saebyeok approve nsmc`$"),
        ("asked", r"^run before asked for approval, and nobody has approved it yet\. To be asked again"),
    ):
        record_verdict(model_of(decided), verdict, by="kim", run="before", why="bad")
        in_task()
        with pytest.raises(AirflowSkipException, match=said):
            nightly.gate.function("nsmc", decided.ref)
    in_task(approval=True)
    assert nightly.gate.function("nsmc", decided.ref) is True
    # A retrained model is another model; another decision about the same model is not.
    in_task()
    assert nightly.gate.function("nsmc", make_decided(store).ref) is True
    with pytest.raises(AirflowSkipException, match="asked for approval"):
        nightly.gate.function("nsmc", make_decided(store, trained=model_of(decided)).ref)
    record_verdict(model_of(decided), "approved", by="kim", run="later")
    assert nightly.gate.function("nsmc", decided.ref) is True
    assert hook.bodies == []
    # The refusal of a barred model is reported as usual.
    record_verdict(model_of(decided), "rejected", by="kim", run="later")
    refused = make_decided(store, promote=False, trained=model_of(decided))
    assert nightly.gate.function("nsmc", refused.ref) is False
    assert [body["event"] for body in hook.bodies] == ["refused"]


def test_gate_asks_about_a_model_with_other_labels(
    nightly: ModuleType, in_task: InTask, store: Store, hook: Hook
) -> None:
    decided = make_decided(store, promote=False, champion="release/nsmc/a/b", waivable=True)
    in_task()
    assert nightly.gate.function("nsmc", decided.ref) is False
    assert [body["event"] for body in hook.bodies] == ["refused"]
    # Another decision about the same model tells people nothing new; one about another model does.
    again = make_decided(store, promote=False, waivable=True, evaluated=decided.input("evaluated"))
    assert nightly.gate.function("nsmc", again.ref) is False
    assert len(hook.bodies) == 1
    assert nightly.gate.function("nsmc", make_decided(store, promote=False, waivable=True).ref) is False
    assert len(hook.bodies) == 2
    in_task(approval=True)
    assert nightly.gate.function("nsmc", decided.ref) is True
    in_task()
    record_verdict(model_of(decided), "approved", by="kim", run="r")
    assert nightly.gate.function("nsmc", decided.ref) is True
    assert len(hook.bodies) == 2


def test_gate_skips_a_recipe_on_hold(nightly: ModuleType, in_task: InTask, store: Store, hook: Hook) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    decided = make_decided(store)
    change_hold(store, "nsmc", held=True, by="kim", why="labels are being checked")
    for asks in (False, True):
        in_task(approval=asks)
        with pytest.raises(AirflowSkipException, match=r"^promotion of nsmc is on hold .*by kim \(labels are"):
            nightly.gate.function("nsmc", decided.ref)
    assert hook.bodies == []
    # A refusal is reported as usual.
    assert nightly.gate.function("nsmc", make_decided(store, promote=False).ref) is False
    assert [body["event"] for body in hook.bodies] == ["refused"]
    change_hold(store, "klue-sts", held=True, by="kim", why="another recipe")
    change_hold(store, "nsmc", held=False, by="kim", why="")
    assert nightly.gate.function("nsmc", decided.ref) is True


# --- deploy ---


def test_deploy_fails_where_no_service_answers(
    nightly: ModuleType, in_task: InTask, store: Store, classifier: TinyModel
) -> None:
    in_task()
    release = classifier.publish(store, "nsmc", key="a" * 16)
    decided = make_decision(store, release, None)
    # The task is retried: a service that is restarting is not a failure.
    with pytest.raises(ServiceError, match="no service answers"):
        nightly.deploy.function("nsmc", release.ref, decided.ref)
    assert DeploymentLog(store).numbers() == []


def test_deploy_refuses_what_nobody_was_asked_about(
    nightly: ModuleType, in_task: InTask, store: Store, classifier: TinyModel, no_bentos: None
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    release = classifier.publish(store, "nsmc", key="a" * 16)
    decided = make_decision(store, release, None)
    # The task `approve` was marked as successful before it ran.
    in_task(approval=True)
    with pytest.raises(AirflowFailException, match="nobody was asked"):
        nightly.deploy.function("nsmc", release.ref, decided.ref)
    record_verdict(model_of(decided), "approved", by="kim", run=RUN)
    with pytest.raises(ServiceError, match="no service answers"):
        nightly.deploy.function("nsmc", release.ref, decided.ref)


def test_deploy_of_the_champion_wakes_nobody(
    nightly: ModuleType, in_task: InTask, store: Store, classifier: TinyModel, no_bentos: None
) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    release = classifier.publish(store, "nsmc", key="a" * 16)
    DeploymentLog(store).append({"nsmc": release.ref}, after=0, run="before", reason="test")
    context = in_task()
    with pytest.raises(AirflowSkipException, match=f"nothing changed since run before: {release.ref} is already live"):
        nightly.deploy.function("nsmc", release.ref, make_decision(store, release, release.ref).ref)
    assert context["outlet_events"][nightly.champion_asset("nsmc")].extra == {}


def test_deploy_that_another_run_replaced_is_skipped(
    nightly: ModuleType,
    in_task: InTask,
    store: Store,
    hook: Hook,
    classifier: TinyModel,
    no_bentos: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    release, other = (classifier.publish(store, "nsmc", key=letter * 16) for letter in "ab")
    # The state after a killed try of this run.
    DeploymentLog(store).append({"nsmc": release.ref}, after=0, run=RUN, reason="test")

    def replaced_at_once(*inputs: Any, **options: Any) -> None:
        run_deploy(*inputs, **options)
        DeploymentLog(store).append({"nsmc": other.ref}, after=1, run="another", reason="test")

    monkeypatch.setattr(nightly, "run_deploy", replaced_at_once)
    context = in_task()
    with pytest.raises(AirflowSkipException, match=f"^{release.ref} is no longer live: another run has replaced it$"):
        nightly.deploy.function("nsmc", release.ref, make_decision(store, release, release.ref).ref)
    assert context["outlet_events"][nightly.champion_asset("nsmc")].extra == {}
    assert hook.bodies == []


def test_deploy_names_its_deployment_to_who_follows(
    nightly: ModuleType,
    in_task: InTask,
    store: Store,
    hook: Hook,
    classifier: TinyModel,
    no_bentos: None,
) -> None:
    release = classifier.publish(store, "nsmc", key="a" * 16)
    # The state after a killed try of this run.
    DeploymentLog(store).append({"nsmc": release.ref}, after=0, run=RUN, reason="test")
    context = in_task()
    record = nightly.deploy.function("nsmc", release.ref, make_decision(store, release, release.ref).ref)
    assert record == "deployments/000001.json"
    assert store.read(record) is not None
    event = context["outlet_events"][nightly.champion_asset("nsmc")]
    assert event.extra == {"deployment": 1, "release": release.ref}
    assert context["ti"].pushed == {"run_note": "nsmc promoted as deployment 1"}  # type: ignore[attr-defined]
    (body,) = hook.bodies
    assert (body["event"], body["number"], body["releases"]) == ("promoted", 1, {"nsmc": release.ref})
    assert body["report"].endswith(f"/saebyeok/{release.ref}/report.html")


# --- the job ---


def test_task_job_is_what_the_form_asked_for(wiring: ModuleType, in_task: InTask) -> None:
    asked = {"base_model": "klue/bert-base", "epochs": 2, "batch_size": 16, "max_length": 64, "seed": 5}
    in_task(profile="full", force=True, learning_rate="3e-5", **asked)
    job = wiring.task_job("nsmc")
    recipe = job.recipe
    assert (recipe.model.base, recipe.model.max_length) == ("klue/bert-base", 64)
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.seed) == (2, 16, 5)
    assert recipe.train.learning_rate == 3e-5
    # The profile "embedded" has mean pooling.
    assert recipe.model.pooling == "cls"
    # 18:00 UTC on the day before.
    assert (job.run, job.by, job.force, str(job.cutoff)) == (RUN, "kim", True, "2026-11-29")


def test_task_job_untouched_is_the_recipes_own(wiring: ModuleType, in_task: InTask) -> None:
    in_task()
    job = wiring.task_job("nsmc")
    assert job.recipe == load_recipe("nsmc", "embedded", sample=True)
    assert job.force is False


def test_task_settings_keep_libraries_below_home(
    wiring: ModuleType, in_task: InTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENTOML_HOME")
    logging.getLogger("great_expectations").setLevel(logging.INFO)
    settings = wiring.task_settings()
    assert os.environ["BENTOML_HOME"].startswith(str(settings.home))
    assert logging.getLogger("great_expectations").level == logging.WARNING
