"""Retrain every recipe each night and deploy the models that pass their gates.

Each recipe is a group of tasks: **validate → tokenize → train → evaluate → decide → gate → approve → export → deploy**.
The groups run independently of each other. A stage reuses its artifact from an earlier run with the same inputs,
unless `force` is on.

- *Gates:* If the new model misses a threshold or is worse than the current model, `gate` logs the reason and sends an
  alert, `export` and `deploy` are skipped, and the current model stays live.
- *Approval:* If the run was triggered with **Ask for approval**, `approve` waits for a person's answer.
- *Retries:* A task is retried only after a temporary error: store, hub or service unreachable, worker killed.
  An invalid file or a diverged training fails at once, with a message that says what to do.
- *Links:* `validate` links to the data docs, `decide` to the report, `export` to the report with parity and latency.
- *Notes:* At its end, a run gets a note with the outcome of each recipe, such as "nsmc refused: ...". The group of a
  refused recipe is green, too, because nothing failed; its `export` and `deploy` are skipped.
- *Assets:* `saebyeok://champion/<recipe>` is updated when another model goes live; other DAGs can be scheduled on it.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, get_current_context, task, task_group

from approval import ANSWER_PARAMS, Approval
from form import form_fields, recipe_tables, recipe_titles
from pipeline.alerts import alert, alert_deployment
from pipeline.errors import AbsentDataError, RejectedDataError
from pipeline.settings import load_settings
from pipeline.stages.running import run_deploy
from pipeline.stages.stage import DECIDE, EVALUATE, EXPORT, TOKENIZE, TRAIN, VALIDATE
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.gone_arrivals import gone_sentence, newly_gone
from pipeline.store.releases import read_card
from pipeline.store.verdicts import asked_before, check_asked, find_bar, find_hold, find_waiver
from wiring import (
    TASK_DEFAULTS,
    DataDocsLink,
    ReportLink,
    airflow_errors,
    artifact_url,
    champion_asset,
    failure,
    make,
    make_told,
    note,
    recipe_paths,
    report_url,
    scheduled,
    skip,
    task_job,
    with_host,
)

log = logging.getLogger(__name__)

SETTINGS = load_settings()
RECIPES = recipe_paths()
RECIPE_TABLES = recipe_tables(RECIPES)
TITLES, PARAMS = recipe_titles(RECIPE_TABLES), form_fields(RECIPE_TABLES)
#: Runs that may be active at the same time; all but one of them usually wait for an approval.
RUNS = 16


@task
@airflow_errors()
def validate(recipe: str) -> str:
    """Read the recipe's files and check them against its expectation suite.

    The run sees only data that arrived before its date in Seoul. Single rows that break a rule are quarantined, up to
    the recipe's limit. A failed **critical** expectation stops the recipe before it uses a GPU; the error names file,
    rows and rule. While the files stay unchanged, later runs skip the recipe and refer to this run. A **warning** is
    reported, and the run continues. *Data docs* shows the full result.

    A recipe without data is skipped if the data directory has the files of another recipe, unless a model of its own
    data is live.
    """
    params = get_current_context()["params"]
    unknown = sorted(set(params) - set(PARAMS))
    if unknown:
        # The form cannot send these, but the REST API accepts any name.
        raise failure(f"unknown parameter: {', '.join(unknown)}; known: {', '.join(PARAMS)}")
    if recipe not in params["recipes"]:
        raise skip(recipe, f"not among the chosen recipes: {', '.join(params['recipes'])}")
    job = task_job(recipe)
    try:
        ref = make_told(job, VALIDATE)
    except AbsentDataError as error:
        # The data of the live model have disappeared, which is a failure. A model of the sample needs no data.
        champion = DeploymentLog(job.store).champion(recipe)
        if champion and not read_card(champion).sample:
            raise
        raise skip(recipe, str(error)) from error
    except RejectedDataError as error:
        # A rejection is when the reader needs the data docs most.
        get_current_context()["ti"].xcom_push(DataDocsLink.xcom_ref, error.ref)
        if error.run == job.run:
            raise
        # Do not send the same alert every night.
        reason = f"the data are the same as in run {error.run}, which failed at this task: {error}"
        raise skip(recipe, reason) from error
    if gone := newly_gone(job.store.open(ref), job.run):
        docs = with_host(artifact_url(ref, DataDocsLink.file))
        facts = {"recipe": recipe, "run": job.run, "dates": gone, "data_docs": docs}
        alert("arrivals_gone", f"{recipe}: {gone_sentence(gone)}. Data docs: {docs}", facts)
    return ref


@task
@airflow_errors()
def tokenize(recipe: str, validated: str) -> str:
    """Split the training rows into train, validation and gate, and tokenize all texts for the base model.

    A row stays in the same split in every run, because a hash of its text selects the split. Only a near copy that
    arrives later can move it: near copies are in the same split, so that no gate row has one in training. The task
    fails if the base model's vocabulary does not fit the texts.
    """
    return make(task_job(recipe), TOKENIZE, validated)


@task(queue=SETTINGS.gpu_queue, pool=SETTINGS.gpu_pool)
@airflow_errors()
def train(recipe: str, tokenized: str) -> str:
    """Fine-tune the base model, on CUDA if available, and keep the epoch with the best validation metric.

    A NaN loss fails at once: lower the learning rate.
    """
    return make(task_job(recipe), TRAIN, tokenized)


@task(queue=SETTINGS.gpu_queue, pool=SETTINGS.gpu_pool)
@airflow_errors()
def evaluate(recipe: str, validated: str, tokenized: str, trained: str) -> str:
    """Predict the held-out test file and the gate split, and compute the metrics with 95% intervals."""
    return make(task_job(recipe), EVALUATE, validated, tokenized, trained)


@task
@airflow_errors()
def decide(recipe: str, evaluated: str) -> str:
    """Check the metrics against the recipe's thresholds, and compare the model with the current one.

    *Report* shows the metrics, the plots and the reason.
    """
    ref = make_told(task_job(recipe), DECIDE, evaluated)
    log.info("report: %s", report_url(ref))
    return ref


@task.short_circuit
@airflow_errors()
def gate(recipe: str, decided: str) -> bool:
    """Continue if the decision is to promote; otherwise send an alert and skip `export` and `deploy`.

    A refusal is not a failure: the run succeeds and the current model stays live. If neither the data nor the recipe
    has changed since an earlier refusal, the task is skipped without another alert. It is also skipped if promotions
    are on hold (DAG `hold`). It is skipped, too, if a person has rejected this model or rolled back from it, or if a
    question about it is unanswered, unless this run asks again (*Ask for approval*). A model that
    cannot be compared with the current one (other labels, another kind, too few gate rows) continues only if this run
    asks, or a person has approved it.
    """
    job, asks = task_job(recipe), get_current_context()["params"]["approval"]
    artifact = job.store.open(decided)
    decision = read_decision(artifact)
    promotable = decision.promote or find_waiver(artifact, decision) is not None or (asks and decision.needs_person)
    if not promotable and artifact.manifest.run != job.run:
        # Do not send the same alert every night.
        raise skip(recipe, f"nothing changed since run {artifact.manifest.run}, which ended with: {decision.reason}")
    if promotable and (hold := find_hold(job.store, recipe)):
        raise skip(recipe, f"{hold}. To resume, run the DAG `hold`, or `saebyeok release {recipe}`")
    bar = find_bar(artifact, decision) if promotable else None
    if bar and not asks:
        again = f"To be asked again, trigger a run with Ask for approval, or run `saebyeok approve {recipe}`"
        raise skip(recipe, f"{bar}. {again}")
    if not promotable:
        tell_refusal(recipe, artifact, decision)
    return promotable


def tell_refusal(recipe: str, decided: Artifact, decision: Decision) -> None:
    """Note that the gate refused a model, and send an alert unless an earlier one asked for a person, too."""
    note(f"{recipe} refused: {decision.why}")
    if decision.needs_person and asked_before(decided):
        log.warning("no alert is sent again: %s", decision.reason)
        return
    report = report_url(decided.ref)
    facts = {"recipe": recipe, "run": decided.manifest.run, "reason": decision.reason, "report": report}
    text = f"{recipe}: the new model was refused, the current model stays live. {decision.reason} Report: {report}"
    alert("refused", text, facts)


APPROVE = """Wait for a person if the run was triggered with **Ask for approval**; otherwise continue at once.

The question shows the checks of the gate and links to the report. *Reject*, or no answer in time, skips `export` and
`deploy`: the run succeeds and the current model stays live.
"""


@task(queue=SETTINGS.gpu_queue, pool=SETTINGS.gpu_pool)
@airflow_errors()
def export(recipe: str, validated: str, trained: str, evaluated: str, decided: str) -> str:
    """Export to fused ONNX (int8 for the CPU, fp16 for CUDA) and compare both with the trained model.

    The task fails if parity or latency exceeds the recipe's bound. *Report* shows the decision's report together with
    these measurements.
    """
    ref = make(task_job(recipe), EXPORT, validated, trained, evaluated, decided)
    log.info("report: %s", report_url(ref))
    return ref


@task
@airflow_errors()
def deploy(recipe: str, released: str, decided: str) -> str:
    """Stage the release in the service, check its golden answers, and only then switch users to it.

    If the live check fails, the previous deployment is restored. To undo a deployment later, run the DAG `rollback`.
    """
    job = task_job(recipe)
    decision = job.store.open(decided)
    if get_current_context()["params"]["approval"]:
        check_asked(decision, read_decision(decision))
    run_deploy(job, job.store.open(released), decision, require_service=True)
    deployment = DeploymentLog(job.store).promotion(recipe, released)
    if deployment is None:
        raise skip(recipe, f"{released} is no longer live: another run has replaced it")
    if deployment.run != job.run:
        # The champion did not change, so no DAG that follows the asset may be triggered.
        since = f"nothing changed since run {deployment.run}"
        raise skip(recipe, f"{since}: {released} is already live; to build it again, run with `force`")
    note(f"{recipe} promoted as deployment {deployment.number}")
    alert_deployment(deployment, {"report": report_url(released)})
    event = get_current_context()["outlet_events"][champion_asset(recipe)]
    event.extra = {"deployment": deployment.number, "release": released}
    return f"deployments/{deployment.number:06d}.json"


def approve(recipe: str, decided: Any) -> Approval:
    """Return the task that waits for a person if the run asks for approval."""
    return Approval(task_id="approve", recipe=recipe, decided=decided, params=ANSWER_PARAMS, doc_md=APPROVE)


def retrain(recipe: str) -> None:
    """Create the tasks of one recipe."""
    validated = validate(recipe)
    validated.operator.operator_extra_links = (DataDocsLink(),)
    tokenized = tokenize(recipe, validated)
    trained = train(recipe, tokenized)
    evaluated = evaluate(recipe, validated, tokenized, trained)
    decided = decide(recipe, evaluated)
    decided.operator.operator_extra_links = (ReportLink(),)
    released = export(recipe, validated, trained, evaluated, decided)
    released.operator.operator_extra_links = (ReportLink(),)
    gate(recipe, decided) >> approve(recipe, decided) >> released
    deploy.override(outlets=[champion_asset(recipe)])(recipe, released, decided)


@dag(
    schedule=scheduled(),
    # No start_date: with one, unpausing would immediately run the last missed interval.
    catchup=False,
    # A run that waits for an approval must not delay the next one. `max_active_tis_per_dag` keeps two runs from doing
    # the same stage of a recipe at the same time.
    max_active_runs=RUNS,
    params=PARAMS,
    doc_md=__doc__,
    tags=["saebyeok"],
    description="Retrain every recipe and deploy the models that pass their gates",
    default_args={
        **TASK_DEFAULTS,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 5,
        "execution_timeout": timedelta(hours=12),
        "max_active_tis_per_dag": 1,
    },
)
def nightly_retrain() -> None:
    """Create one task group per recipe."""
    for name in RECIPES:
        task_group(group_id=name, tooltip=TITLES[name])(retrain)(name)


nightly_retrain()
