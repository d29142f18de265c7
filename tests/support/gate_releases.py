"""Releases for tests of the gate: copies of real artifacts with other figures, and their deployments."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from pipeline.job import open_store
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.manifest import make_key
from tests.support.small_pipeline import Road
from tests.support.tiny_releases import linked, make_artifact

KINDS = ("validated", "tokenized", "trained", "evaluated")


def republished(source: Artifact, *, files: Mapping[str, bytes] | None = None, **changes: Any) -> Artifact:
    """Publish a copy of an artifact with other `files`, `fields`, `figures` or `inputs` (unnamed ones are kept)."""
    manifest = source.manifest
    with source.store.draft() as draft:
        for name in manifest.files:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source.path / name, draft / name)
        for name, content in (files or {}).items():
            (draft / name).write_bytes(content)
        inputs = {name: item.model_dump() for name, item in manifest.inputs.items()}
        told: dict[str, Any] = {"fields": manifest.fields, "figures": manifest.figures, "inputs": inputs} | changes
        # Another key, as in another run.
        key = make_key(manifest.kind, 0, told, {"copied": manifest.key})
        return source.store.publish(draft, manifest.kind, manifest.recipe, key, run="other", **told)


def of_other_data(trained: Artifact) -> Artifact:
    """Publish a copy of a trained artifact as if another run had trained it on other data."""
    tokenized = trained.input("tokenized")
    validated = republished(tokenized.input("validated"))
    return republished(trained, inputs=linked(tokenized=republished(tokenized, inputs=linked(validated=validated))))


def without_numbers(trained: Artifact) -> Artifact:
    """Publish a copy of a trained artifact whose weights are all NaN."""
    file = "model/model.safetensors"
    weights = load((trained.path / file).read_bytes())
    return republished(trained, files={file: save({name: tensor * torch.nan for name, tensor in weights.items()})})


def release_of(trained: Artifact, evaluated: Artifact | None = None) -> Artifact:
    """A release with the parts that a gate reads."""
    inputs = linked(trained=trained) | (linked(evaluated=evaluated) if evaluated else {})
    return make_artifact(trained.store, "release", trained.manifest.recipe, inputs)


def serve(release: Artifact, **intent: Any) -> Deployment:
    """Make the release the champion of its recipe, by a promotion or by another `intent`."""
    log = DeploymentLog(release.store)
    latest = log.latest()
    releases = (latest.releases if latest else {}) | {release.manifest.recipe: release.ref}
    return log.append(releases, after=latest.number if latest else 0, run="night", reason="for a test", **intent)


def own_copy(road: Road, home: Path) -> Road:
    """Return the same artifacts in a copy of the store, which a test may change."""
    made = {name: getattr(road, name) for name in KINDS}
    shutil.copytree(made["trained"].store.uri, home / "store", ignore=shutil.ignore_patterns("deployments"))
    settings = road.job.settings.model_copy(update={"home": home})
    copied = Road(replace(road.job, settings=settings, store=open_store(settings)), road.rows)
    vars(copied).update({name: copied.job.store.open(item.ref) for name, item in made.items()})
    return copied
