"""Retrain every recipe at night; what passes its gates is served by morning.

Each recipe is a group of tasks: **validate → tokenize → train → evaluate → decide → gate → approve → export → deploy**.
The groups do not wait for each other. What a stage has made from the same inputs is found again and not
made twice, unless `force` is on.

- *Nothing half-good is served.* Where the new model misses a floor, or is worse than the one being served,
  `gate` says why (and alerts), `export` and `deploy` are skipped, and the served model stays.
- *A person decides last*, where the run was triggered with **Ask for approval**: `approve` waits for the answer.
- *Retries* are for what another try can help: the store, the hub or the service being away, a killed worker.
  A wrong file or a diverged training fails at once, saying what to do.
- *Links:* `validate` opens the data docs, `decide` the report, `export` the same with parity and latency.
- *Assets:* `saebyeok://champion/<recipe>` is updated when another model goes live; schedule a DAG on it to follow.
"""

from __future__ import annotations

import tomllib
from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowFailException

from approval import HOURS, Approval
from pipeline.errors import RejectedDataError
from pipeline.job import OVERRIDES
from pipeline.recipes.loading import RECIPES, recipe_names
from pipeline.recipes.schema import ModelSpec, TrainSpec
from pipeline.recipes.strict_model import Strict
from pipeline.stages.stage import DECIDE, EVALUATE, EXPORT, TOKENIZE, TRAIN, VALIDATE, run_deploy
from pipeline.store.decisions import find_rejection, read_decision
from wiring import (
    TASK_DEFAULTS,
    DataDocsLink,
    ReportLink,
    airflow_errors,
    alert,
    artifact_url,
    champion_asset,
    daily,
    make,
    make_told,
    promotion,
    skip,
    task_job,
    with_host,
)

#: Queue and pool of what wants a GPU where there is one.
GPU = "gpu"
NAMES = recipe_names()
#: A number below 1 as text, such as 0.00005 or 5e-5; the recipe's own bound is checked at the start.
NUMBER = r"^(0?\.[0-9]+|[0-9](\.[0-9]+)?[eE]-[0-9]+)$"


def recipe_tables() -> dict[str, dict[str, Any]]:
    """The recipes' TOML documents by name; a broken one is empty, and fails in its own `validate`."""
    tables: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        try:
            tables[name] = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            tables[name] = {}
    return tables


TABLES = recipe_tables()
PROFILES = sorted({profile for table in TABLES.values() for profile in table.get("profiles", {})})


def override(name: str, title: str, description: str) -> Param:
    """A form field that sets a recipe field; its type and bounds are the recipe's own."""
    section, field = OVERRIDES[name].split(".")
    models: dict[str, type[Strict]] = {"model": ModelSpec, "train": TrainSpec}
    schema = models[section].model_json_schema()["properties"][field]
    if schema["type"] == "number":
        # The form's stepper would step by 1 and does not understand 5e-5: a text field with proposals does.
        schema |= {"type": ["null", "string", "number"], "pattern": NUMBER, "examples": ["1e-5", "5e-5", "5e-4"]}
    else:
        schema["type"] = ["null", schema["type"]]
    return Param(None, **schema | {"title": title, "description": f"{description} Empty: the recipe's own."})


PARAMS = {
    "recipes": Param(
        list(NAMES),
        type="array",
        # The form offers `examples`; what is accepted is `items`.
        examples=list(NAMES),
        items={"type": "string", "enum": list(NAMES)},
        values_display={name: table.get("title", name) for name, table in TABLES.items()},
        minItems=1,
        uniqueItems=True,
        title="Recipes",
        description="Which data sets to retrain. The others are skipped.",
    ),
    "profile": Param(
        None,
        type=["null", "string"],
        enum=[*PROFILES, None],
        values_display={None: "as the machine is set"},
        title="Profile",
        description="embedded: a small model, minutes on a CPU. full: klue/bert-base, for a GPU. "
        "Empty: what SAEBYEOK_PROFILE says, embedded unless set.",
    ),
    "base_model": override(
        "base_model",
        "Base model",
        "What is fine-tuned: mini (it ships with Saebyeok), a hub id such as klue/bert-base, or a local directory.",
    ),
    "epochs": override(
        "epochs", "Epochs", "Passes over the training data; the best one by the validation split is kept."
    ),
    "learning_rate": override("learning_rate", "Learning rate", "Peak learning rate, such as 5e-5."),
    "batch_size": override("batch_size", "Batch size", "Rows in one training step."),
    "max_length": override("max_length", "Max length", "Tokens that are kept of a text, or of a pair."),
    "seed": override("seed", "Seed", "Same seed, data and settings: same model, on the same machine."),
    "approval": Param(
        False,
        type="boolean",
        title="Ask for approval",
        description="Before a model that passed its gates goes on, wait for a person to approve it (Required Actions "
        f"of the run). Rejected, or without an answer within {HOURS} hours, the served model stays.",
    ),
    "force": Param(
        False,
        type="boolean",
        title="Force",
        description="Make every stage again, even where a finished result of the same inputs is in the store.",
    ),
}


@task
@airflow_errors()
def validate(recipe: str) -> str:
    """Read the recipe's files and hold them against its expectation suite.

    Data are what had arrived before the run's date in Seoul. Single rows that break a rule are set aside, up to the
    recipe's bound. A **critical** expectation that is missed stops the recipe here, before a GPU is taken: the error
    names file, rows and rule; while the files stay as they are, later nights are skipped, saying so. A **warning** is
    reported and lets it go on. *Data docs* opens the full result.
    """
    params = get_current_context()["params"]
    unknown = sorted(set(params) - set(PARAMS))
    if unknown:
        # The form cannot send these, but the REST API takes any name.
        raise AirflowFailException(f"no such parameter: {', '.join(unknown)}; there are: {', '.join(PARAMS)}")
    if recipe not in params["recipes"]:
        raise skip(f"{recipe} was not chosen: this run is for {', '.join(params['recipes'])}")
    job = task_job(recipe)
    try:
        return make_told(job, VALIDATE)
    except RejectedDataError as error:
        # The data docs of what was refused are the ones that are wanted most.
        get_current_context()["ti"].xcom_push(DataDocsLink.xcom_ref, error.ref)
        if error.run == job.run:
            raise
        # Nobody wants the same alert every night.
        raise skip(f"nothing new since run {error.run}, which was stopped here: {error}") from error


@task
@airflow_errors()
def tokenize(recipe: str, validated: str) -> str:
    """Cut the texts into the base model's tokens, and the training rows into train, validation and gate.

    A row keeps its side from night to night: the side is a hash of its text.
    """
    return make(task_job(recipe), TOKENIZE, validated)


@task(queue=GPU, pool=GPU)
@airflow_errors()
def train(recipe: str, tokenized: str) -> str:
    """Fine-tune the base model, on CUDA where there is one, and keep the epoch that is best on validation.

    A loss that becomes NaN fails at once: lower the learning rate.
    """
    return make(task_job(recipe), TRAIN, tokenized)


@task(queue=GPU, pool=GPU)
@airflow_errors()
def evaluate(recipe: str, validated: str, tokenized: str, trained: str) -> str:
    """Predict the untouched test file and the gate split; metrics come with 95% intervals."""
    return make(task_job(recipe), EVALUATE, validated, tokenized, trained)


@task
@airflow_errors()
def decide(recipe: str, evaluated: str) -> str:
    """Hold the figures against the recipe's floors, and the model against the one being served.

    *Report* opens the figures, the pictures and the reason.
    """
    return make_told(task_job(recipe), DECIDE, evaluated)


@task.short_circuit
@airflow_errors()
def gate(recipe: str, decided: str) -> bool:
    """Go on where the decision was to promote; otherwise alert, and skip `export` and `deploy`.

    A refusal is an answer, not a failure: the run succeeds and the served model stays. Where neither the data
    nor the recipe has changed since an earlier refusal, it says so and is skipped; so it is where a person has rejected
    this very model, unless this run asks again (*Ask for approval*) or makes it anew (*Force*).
    """
    job, asks = task_job(recipe), get_current_context()["params"]["approval"]
    artifact = job.store.open(decided)
    decision = read_decision(artifact)
    if not decision.promote and artifact.manifest.run != job.run:
        # Nobody wants the same alert every night.
        raise skip(f"nothing new since run {artifact.manifest.run}, which ended so: {decision.reason}")
    rejection = find_rejection(job.store, artifact, decision)
    if rejection and not asks:
        raise skip(
            f"{rejection.figures['by']} in run {rejection.manifest.run}; to be asked again, trigger a run with Ask for "
            "approval; to make the model anew, one with Force"
        )
    if not decision.promote:
        facts = {"recipe": recipe, "run": job.run, "reason": decision.reason}
        facts["report"] = with_host(artifact_url(decided, ReportLink.file))
        alert("refused", f"{recipe}: the new model was refused, the served one stays. {decision.reason}", facts)
    return decision.promote


APPROVE = """Wait for a person, where the run was triggered with **Ask for approval**; otherwise go on at once.

The question shows what was checked and links the report. *Reject*, or no answer in time, skips `export` and `deploy`:
the run succeeds and the served model stays.
"""


@task(queue=GPU, pool=GPU)
@airflow_errors()
def export(recipe: str, validated: str, trained: str, evaluated: str, decided: str) -> str:
    """Export to fused ONNX, int8 for the CPU and fp16 for CUDA, and measure both against the trained model.

    A difference beyond the recipe's bound, or an answer beyond its latency budget, fails. *Report* is that of the
    decision with what was measured here.
    """
    return make(task_job(recipe), EXPORT, validated, trained, evaluated, decided)


@task
@airflow_errors()
def deploy(recipe: str, released: str, decided: str) -> str:
    """Stage the release in the service, ask it the golden sentences, and only then move users to it.

    On a miss the previous deployment is recorded again. To undo a deployment later, run the DAG `rollback`.
    """
    job = task_job(recipe)
    run_deploy(job, job.store.open(released), job.store.open(decided), require_service=True)
    deployment = promotion(job.store, recipe, released)
    if deployment is None or deployment.run != job.run:
        # Nothing changed, so nobody who follows the asset is to be woken.
        since = f" since run {deployment.run}" if deployment else ""
        raise skip(f"nothing new{since}: {released} is live already; to make it again, run with `force`")
    event = get_current_context()["outlet_events"][champion_asset(recipe)]
    event.extra = {"deployment": deployment.number, "release": released}
    return f"deployments/{deployment.number:06d}.json"


def approve(recipe: str, decided: Any) -> Approval:
    """Wait for a person, where the run asks for one."""
    return Approval(task_id="approve", recipe=recipe, decided=decided, doc_md=APPROVE)


def retrain(recipe: str) -> None:
    """The tasks of one recipe."""
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
    schedule=daily("03:00"),
    # No start_date: with one, unpausing would at once run the last night that was missed.
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    doc_md=__doc__,
    tags=["saebyeok"],
    description="Retrain every recipe; what passes its gates is served by morning",
    default_args={
        **TASK_DEFAULTS,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 5,
        "execution_timeout": timedelta(hours=12),
    },
)
def nightly_retrain() -> None:
    """One group of tasks a recipe."""
    for name in NAMES:
        task_group(group_id=name, tooltip=TABLES[name].get("title", name))(retrain)(name)


nightly_retrain()
