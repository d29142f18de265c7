"""The deploy stage: make a release that passed every gate the champion."""

from __future__ import annotations

from pipeline.deployment.deployer import log, open_deployer
from pipeline.errors import ConflictError, RefusedError
from pipeline.job import Job, keep_libraries_home
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.releases import read_card
from pipeline.tracking.runs import tracked


def deploy(job: Job, release: Artifact, decision: Artifact, *, require_service: bool) -> Deployment:
    """Make `release` the champion of its recipe; the deployment that names it, its Bento built.

    Without a service that answers, `require_service` raises ServiceError; else the golden sentences are
    asked of an engine in this process and the deployment is served when a service starts.
    Raises RefusedError (the decision is no, or about another model), ConflictError (the champion is not the
    one that was compared with), ArtifactError (a worker cannot load it), GoldenMismatchError (it answers
    differently from its card; where it was live already, the previous map is recorded again) or ServiceError.
    """
    keep_libraries_home(job.settings)
    with tracked(job, "deploy", {}, {"release": release, "decision": decision}) as tracker:
        deployment = _deploy(job, release, decision, require_service=require_service)
        tracker.summary({"deployment": deployment.number, "reason": deployment.reason})
    return deployment


def _deploy(job: Job, release: Artifact, decision: Artifact, *, require_service: bool) -> Deployment:
    verdict = read_decision(decision)
    _check_decision(release, decision, verdict)
    records = DeploymentLog(job.store)
    champion = _champion(records, job.recipe.name)
    latest = records.latest()
    if latest is not None and champion == release.ref:
        log.info("%s is the champion already: deployment %d stays", read_card(release).id, latest.number)
        with open_deployer(job.settings, job.store, job.run, require_service=False) as deployer:
            return deployer.complete(job.recipe.name, latest, release, verdict.champion)
    if champion != verdict.champion:
        raise ConflictError(
            f"the champion of {job.recipe.name} is {champion or 'none'}, not {verdict.champion or 'none'}, with which "
            "this release was compared: another run deployed meanwhile; run again to be compared with it"
        )
    with open_deployer(job.settings, job.store, job.run, require_service=require_service) as deployer:
        return deployer.replace(job.recipe.name, release, champion, verdict.reason)


def _check_decision(release: Artifact, decision: Artifact, verdict: Decision) -> None:
    if not verdict.promote:
        raise RefusedError(f"{release.ref} is not to be deployed: {verdict.reason}")
    judged = {item.ref for item in decision.manifest.inputs.values()}
    if not judged & {item.ref for item in release.manifest.inputs.values()}:
        raise RefusedError(f"{decision.ref} is a decision about another model than {release.ref}")


def _champion(records: DeploymentLog, recipe: str) -> str | None:
    champion = records.champion(recipe)
    return champion.ref if champion else None
