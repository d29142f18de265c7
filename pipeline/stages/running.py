"""Run a stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.job import Job, data_directory, make_home
from pipeline.stages.stage import DECIDE, EVALUATE, EXPORT, TOKENIZE, TRAIN, VALIDATE, Stage, Step
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import DeploymentLog
from pipeline.store.files.store_errors import full_disk_errors

if TYPE_CHECKING:
    from pipeline.store.deployments import Deployment


def build(job: Job, stage: Stage, *inputs: Artifact) -> Artifact:
    """Run a stage and return its artifact.

    Raises StoreError if a disk is full, SettingsError if HOME is not writable, and the errors of the stage itself.
    """
    make_home(job.settings)
    # The store reports its own full disk; this covers checkpoints, caches and the sample below HOME.
    with full_disk_errors(str(job.settings.home)):
        return CALLS[stage](job, *inputs)


def run_stage(job: Job, stage: Stage, inputs: Sequence[Artifact]) -> Step:
    """Run one stage on its inputs and return the completed step."""
    started = time.monotonic()
    artifact = build(job, stage, *inputs)
    # The manifest names the run that built the artifact.
    return Step(stage, artifact, time.monotonic() - started, artifact.manifest.run != job.run)


def run_deploy(job: Job, release: Artifact, decision: Artifact, *, require_service: bool) -> Deployment:
    """Deploy an approved release and return the deployment. Raises what `pipeline.stages.deploy.deploy` raises."""
    from pipeline.stages.deploy import deploy

    with full_disk_errors(str(job.settings.home)):
        return deploy(job, release, decision, require_service=require_service)


# Each stage is imported when it runs, so that a process imports only the packages that its stage needs.


def _validate(job: Job) -> Artifact:
    from pipeline.data.download import fetch_published
    from pipeline.stages.validate import validate

    if job.settings.data is not None and job.settings.source != "directory":
        fetch_published(job.recipe, job.settings.source, job.settings.data)
    directory, _ = data_directory(job.settings)
    return validate(job, directory, DeploymentLog(job.store).champion(job.recipe.name))


def _tokenize(job: Job, validated: Artifact) -> Artifact:
    from pipeline.stages.tokenize import tokenize

    return tokenize(job, validated)


def _train(job: Job, tokenized: Artifact) -> Artifact:
    from pipeline.stages.train import train

    return train(job, tokenized, DeploymentLog(job.store).champion(job.recipe.name))


def _evaluate(job: Job, validated: Artifact, tokenized: Artifact, trained: Artifact) -> Artifact:
    from pipeline.stages.evaluate import evaluate

    return evaluate(job, validated, tokenized, trained)


def _decide(job: Job, evaluated: Artifact) -> Artifact:
    from pipeline.stages.decide import decide

    return decide(job, evaluated, DeploymentLog(job.store).champion(job.recipe.name))


def _export(job: Job, validated: Artifact, trained: Artifact, evaluated: Artifact, decided: Artifact) -> Artifact:
    from pipeline.stages.export import export

    return export(job, validated, trained, evaluated, decided)


CALLS: dict[Stage, Callable[..., Artifact]] = {
    VALIDATE: _validate,
    TOKENIZE: _tokenize,
    TRAIN: _train,
    EVALUATE: _evaluate,
    DECIDE: _decide,
    EXPORT: _export,
}
