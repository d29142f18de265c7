"""Run the whole pipeline of one recipe, or a single stage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pipeline.alerts import alert_deployment
from pipeline.cli.console import say
from pipeline.cli.output import RunOutcome, deployment_document, say_done, say_start, step_document
from pipeline.job import Job
from pipeline.progress import format_duration
from pipeline.stages.running import run_deploy, run_stage
from pipeline.stages.stage import DEPLOY_INPUTS, EXPORT, STAGES, Stage, find_inputs, refs_of
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import read_decision
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.releases import read_card
from pipeline.store.verdicts import check_verdicts, find_waiver


def run_all(job: Job, *, with_deploy: bool = True) -> RunOutcome:
    """Run every stage in order, report progress on standard error, and return the outcome.

    Without `with_deploy`, the release is exported and not deployed. Stops after the decision if the gate refuses the
    model. Raises RefusedError if a person has rejected the model or holds the recipe.
    """
    outcome = RunOutcome(job)
    for stage in STAGES:
        if stage is EXPORT and not _may_go_on(outcome):
            return outcome
        _step(outcome, stage, len(STAGES) + with_deploy)
    if with_deploy:
        _deploy(outcome)
    return outcome


def _step(outcome: RunOutcome, stage: Stage, total: int) -> None:
    say_start(stage.name, len(outcome.steps) + 1, total, outcome.job.recipe.name)
    step = run_stage(outcome.job, stage, [outcome.made[kind] for kind in stage.inputs])
    say_done(step)
    outcome.steps.append(step)


def _may_go_on(outcome: RunOutcome) -> bool:
    decided = outcome.made["decide"]
    outcome.decision = decision = read_decision(decided)
    promotable = decision.promote or find_waiver(decided, decision) is not None
    if promotable:
        check_verdicts(outcome.job.store, decided, decision)
    return promotable


def _deploy(outcome: RunOutcome) -> None:
    job, number = outcome.job, len(STAGES) + 1
    say_start("deploy", number, number, job.recipe.name)
    started = time.monotonic()
    release, decision = (outcome.made[kind] for kind in DEPLOY_INPUTS)
    outcome.deployment, outcome.deployed_now = _deploy_release(job, release, decision)
    how = "recorded as" if outcome.deployed_now else "already live as"
    say(f"      {how} deployment {outcome.deployment.number} in {format_duration(time.monotonic() - started)}")


def _deploy_release(job: Job, release: Artifact, decision: Artifact) -> tuple[Deployment, bool]:
    """Deploy a release, and return the deployment and whether it is new; a new one is alerted."""
    before = DeploymentLog(job.store).latest()
    deployment = run_deploy(job, release, decision, require_service=False)
    new = before is None or deployment.number > before.number
    if new:
        alert_deployment(deployment, {"report": f"{release.uri}/report.html"})
    return deployment, new


def run_one(job: Job, name: str, refs: Sequence[str]) -> dict[str, Any]:
    """Run one stage on the inputs named by `refs`, or on the newest ones, and return its document for `--json`."""
    if name == "deploy":
        return _deploy_one(job, refs)
    (stage,) = [stage for stage in STAGES if stage.name == name]
    inputs = find_inputs(job, stage.inputs, refs)
    step = run_stage(job, stage, inputs)
    document = {
        "recipe": job.recipe.name,
        "run": job.run,
        "sample": job.recipe.sample,
        **step_document(step),
        "uri": step.artifact.uri,
        "inputs": refs_of(inputs),
        "figures": step.artifact.manifest.figures,
    }
    if name != "decide":
        return document
    decision = read_decision(step.artifact)
    return document | {"promoted": decision.promote, "reason": decision.reason}


def _deploy_one(job: Job, refs: Sequence[str]) -> dict[str, Any]:
    inputs = find_inputs(job, DEPLOY_INPUTS, refs)
    deployment, _ = _deploy_release(job, *inputs)
    return {
        "recipe": job.recipe.name,
        "run": job.run,
        "sample": read_card(inputs[0]).sample,
        "stage": "deploy",
        "inputs": refs_of(inputs),
        "deployment": deployment.number,
        "releases": deployment.releases,
        "ids": deployment_document(job.store, deployment)["ids"],
    }
