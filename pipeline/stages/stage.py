"""The stages in order, and how to find the inputs of a single stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import ArtifactError
from pipeline.job import Job
from pipeline.store.artifacts import Artifact


@dataclass(frozen=True)
class Stage:
    """A stage that builds an artifact of `kind` from artifacts of the kinds `inputs`, in the order of its arguments."""

    name: str
    kind: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A completed stage and its duration in seconds; `reused` if the artifact is from an earlier run."""

    stage: Stage
    artifact: Artifact
    seconds: float
    reused: bool


VALIDATE = Stage("validate", "validate", ())
TOKENIZE = Stage("tokenize", "tokenize", ("validate",))
TRAIN = Stage("train", "train", ("tokenize",))
EVALUATE = Stage("evaluate", "evaluate", ("validate", "tokenize", "train"))
DECIDE = Stage("decide", "decide", ("evaluate",))
EXPORT = Stage("export", "release", ("validate", "train", "evaluate", "decide"))

#: All stages that build an artifact; `deploy` follows them and records a deployment.
STAGES = (VALIDATE, TOKENIZE, TRAIN, EVALUATE, DECIDE, EXPORT)
#: Kinds of the artifacts that `deploy` needs.
DEPLOY_INPUTS = ("release", "decide")


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
        raise ArtifactError(f"--input {artifact.ref} is a {manifest.kind} artifact; name one of: {wanted}")
    if manifest.recipe != job.recipe.name:
        raise ArtifactError(
            f"--input {artifact.ref} belongs to recipe {manifest.recipe}; name an artifact of {job.recipe.name}"
        )


def _made_from(artifacts: Iterable[Artifact], kind: str) -> Artifact | None:
    """Return the artifact of `kind` that `artifacts` were made from, directly or indirectly, or None."""
    waiting = list(artifacts)
    while waiting:
        artifact = waiting.pop()
        for ref in artifact.made_from:
            source = artifact.store.open(ref)
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
