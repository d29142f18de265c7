"""The deploy stage: make a release that passed every gate the champion."""

from __future__ import annotations

from pipeline.deployment.deployer import log, open_deployer
from pipeline.errors import ConflictError, RefusedError
from pipeline.job import Job, keep_libraries_home
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.releases import read_card
from pipeline.store.verdicts import Verdict, check_verdicts, find_verdict, find_waiver, model_of
from pipeline.tracking.runs import tracked


def deploy(job: Job, release: Artifact, decision: Artifact, *, require_service: bool) -> Deployment:
    """Make `release` the champion of its recipe, build its Bento, and return the deployment.

    If no service answers, `require_service` raises ServiceError. Without it, an engine in this process checks the
    golden sentences, and the service serves the deployment when it starts.
    Raises RefusedError if the decision is a refusal or belongs to another model, if a person has rejected the model,
    has not answered whether it may be deployed, or holds the recipe, ConflictError if the champion is not
    the one that the release was compared with, ArtifactError if a worker cannot load the release, GoldenMismatchError
    if its answers differ from its card (the previous deployment is restored if the release was live), or ServiceError.
    """
    keep_libraries_home(job.settings)
    with tracked(job, "deploy", {}, {"release": release, "decision": decision}) as tracker:
        deployment = _deploy(job, release, decision, require_service=require_service)
        tracker.summary({"deployment": deployment.number, "reason": deployment.reason})
    return deployment


def _deploy(job: Job, release: Artifact, decision: Artifact, *, require_service: bool) -> Deployment:
    verdict = read_decision(decision)
    waiver = find_waiver(decision, verdict)
    _check_decision(release, decision, verdict, waiver)
    records = DeploymentLog(job.store)
    champion = _champion(records, job.recipe.name)
    latest = records.latest()
    if latest is not None and champion == release.ref:
        log.info("%s is already the champion: deployment %d stays live", read_card(release).id, latest.number)
        with open_deployer(job.settings, job.store, job.run, job.by, require_service=False) as deployer:
            return deployer.complete(job.recipe.name, latest, release, verdict.champion)
    if champion != verdict.champion:
        raise ConflictError(
            f"the champion of {job.recipe.name} is {champion or 'none'}, but this release was compared with "
            f"{verdict.champion or 'none'}: another run deployed in the meantime. Run again to compare with the new one"
        )

    def check() -> None:
        check_verdicts(job.store, decision, verdict)

    # Staging a release that is refused would only cost memory.
    check()
    with open_deployer(job.settings, job.store, job.run, job.by, require_service=require_service) as deployer:
        return deployer.replace(job.recipe.name, release, champion, _reason(decision, verdict), check)


def _check_decision(release: Artifact, decision: Artifact, verdict: Decision, waiver: Verdict | None) -> None:
    if not verdict.promote and waiver is None:
        raise RefusedError(f"release {release.ref} was refused: {verdict.reason}")
    if not set(decision.made_from) & set(release.made_from):
        raise RefusedError(
            f"decision {decision.ref} does not belong to release {release.ref}; name the matching one with --input"
        )


def _reason(decision: Artifact, verdict: Decision) -> str:
    """Return why the model is deployed: the person who approved it, if one did, and the gate's reason."""
    said = find_verdict(model_of(decision))
    return f"Promoted: {said}. {verdict.why}" if said and said.verdict == "approved" else verdict.reason


def _champion(records: DeploymentLog, recipe: str) -> str | None:
    champion = records.champion(recipe)
    return champion.ref if champion else None
