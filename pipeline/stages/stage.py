"""The stages in order: how to run each, and how to find the inputs of a single stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ArtifactError
from pipeline.job import Job, data_directory, make_home
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import DeploymentLog
from pipeline.store.store_errors import full_disk_errors

if TYPE_CHECKING:
    from pipeline.store.deployments import Deployment


@dataclass(frozen=True)
class Stage:
    """A stage that builds an artifact of `kind` from artifacts of the kinds `inputs`, in the order of its arguments."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    call: Callable[..., Artifact]

    def run(self, job: Job, *inputs: Artifact) -> Artifact:
        """Run the stage and return its artifact.

        Raises StoreError if a disk is full, SettingsError if HOME is not writable, and the errors of the stage itself.
        """
        make_home(job.settings)
        # The store reports its own full disk; this covers checkpoints, caches and the sample below HOME.
        with full_disk_errors(str(job.settings.home)):
            return self.call(job, *inputs)


@dataclass(frozen=True)
class Step:
    """A completed stage and its duration in seconds; `reused` if the artifact is from an earlier run."""

    stage: Stage
    artifact: Artifact
    seconds: float
    reused: bool


# Each stage is imported when it runs, because the scheduler lists the stages without the packages that build artifacts.


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


VALIDATE = Stage("validate", "validate", (), _validate)
TOKENIZE = Stage("tokenize", "tokenize", ("validate",), _tokenize)
TRAIN = Stage("train", "train", ("tokenize",), _train)
EVALUATE = Stage("evaluate", "evaluate", ("validate", "tokenize", "train"), _evaluate)
DECIDE = Stage("decide", "decide", ("evaluate",), _decide)
EXPORT = Stage("export", "release", ("validate", "train", "evaluate", "decide"), _export)

#: All stages that build an artifact; `deploy` follows them and records a deployment.
STAGES = (VALIDATE, TOKENIZE, TRAIN, EVALUATE, DECIDE, EXPORT)
#: Kinds of the artifacts that `deploy` needs.
DEPLOY_INPUTS = ("release", "decide")


def run_stage(job: Job, stage: Stage, inputs: Sequence[Artifact]) -> Step:
    """Run one stage on its inputs and return the completed step."""
    started = time.monotonic()
    artifact = stage.run(job, *inputs)
    # The manifest names the run that built the artifact.
    return Step(stage, artifact, time.monotonic() - started, artifact.manifest.run != job.run)


def run_deploy(job: Job, release: Artifact, decision: Artifact, *, require_service: bool) -> Deployment:
    """Deploy an approved release and return the deployment. Raises what `pipeline.stages.deploy.deploy` raises."""
    from pipeline.stages.deploy import deploy

    with full_disk_errors(str(job.settings.home)):
        return deploy(job, release, decision, require_service=require_service)


def find_inputs(job: Job, kinds: Sequence[str], refs: Sequence[str] = ()) -> list[Artifact]:
    """Return the artifacts of `kinds`: the ones named by `refs`, else their ancestors, else the newest.

    Raises ArtifactError if one is missing, belongs to another recipe or is not an input of the stage.
    """
    found: dict[str, Artifact] = {}
    for ref in refs:
        artifact = job.store.open(ref)
        _check_named(job, artifact, kinds)
        found |= {artifact.manifest.kind: artifact}
    # Later kinds are built from earlier ones. Start with the last, so that all are of one lineage.
    for kind in reversed(kinds):
        if kind not in found:
            found[kind] = _made_from(found.values(), kind) or _newest(job, kind)
    return [found[kind] for kind in kinds]


def _check_named(job: Job, artifact: Artifact, kinds: Sequence[str]) -> None:
    manifest = artifact.manifest
    if manifest.kind not in kinds:
        wanted = ", ".join(kinds) or "no artifacts"
        raise ArtifactError(f"--input {artifact.ref} is a {manifest.kind} artifact; this stage takes {wanted}")
    if manifest.recipe != job.recipe.name:
        raise ArtifactError(f"--input {artifact.ref} belongs to recipe {manifest.recipe}, not {job.recipe.name}")


def _made_from(artifacts: Iterable[Artifact], kind: str) -> Artifact | None:
    """Return the artifact of `kind` among the ancestors of `artifacts`, or None."""
    waiting = list(artifacts)
    while waiting:
        artifact = waiting.pop()
        for name, item in artifact.manifest.inputs.items():
            # A decision compares with these two; it is not built from them.
            if name in ("champion", "best"):
                continue
            source = artifact.store.open(item.ref)
            if source.manifest.kind == kind:
                return source
            waiting.append(source)
    return None


def _newest(job: Job, kind: str) -> Artifact:
    artifact = job.store.newest(kind, job.recipe.name)
    if artifact is None:
        (command,) = [stage.name for stage in STAGES if stage.kind == kind]
        raise ArtifactError(
            f"store {job.store.uri} has no {kind} artifact of {job.recipe.name} yet; "
            f"run `saebyeok {command} {job.recipe.name}` first"
        )
    return artifact


def refs_of(artifacts: Sequence[Artifact]) -> Mapping[str, str]:
    """Return the refs of `artifacts` by kind."""
    return {artifact.manifest.kind: artifact.ref for artifact in artifacts}
