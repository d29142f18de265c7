"""What of the store is an artifact at Weights & Biases, under which name, and what it holds there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.store.artifacts import MANIFEST, Artifact

#: The stage that makes an artifact of a kind, where their names differ.
STAGE_OF = {"release": "export"}


#: Kind to W&B's type; the others are stations between the two and stay in the store.
TYPES = {"validate": "dataset", "release": "model"}
#: Files of a release that hold sentences of the data: golden ones, mistakes.
WITH_TEXTS = ("card.json", "report.html")
CHAMPION = "champion"


def collection(kind: str, recipe: str) -> str:
    """Name of the artifacts of this kind at W&B: `nsmc-data`, `nsmc`."""
    return f"{recipe}-data" if kind == "validate" else recipe


def hosted_name(ref: str) -> tuple[str, str]:
    """Collection and alias of the artifact at `ref`: its attempt, which no other has."""
    kind, recipe, _, attempt = ref.split("/")
    return collection(kind, recipe), attempt


def sources(artifacts: Iterable[Artifact]) -> list[str]:
    """Refs of what W&B knows of the ancestry of `artifacts`: the nearest on every path."""
    return list(dict.fromkeys(ref for artifact in artifacts for ref in _nearest(artifact)))


def _nearest(artifact: Artifact) -> Iterator[str]:
    if artifact.manifest.kind in TYPES:
        yield artifact.ref
        return
    for item in artifact.manifest.inputs.values():
        yield from _nearest(artifact.store.open(item.ref))


def described(artifact: Artifact) -> dict[str, Any]:
    """The manifest as W&B is told it: no text of a row, and no sentence that might quote one."""
    document = artifact.manifest.model_dump(mode="json")
    figures = {name: value for name, value in document["figures"].items() if not _sentences(value)}
    return document | {"ref": artifact.ref, "uri": artifact.uri, "figures": figures}


def _sentences(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, str) for item in value)


def hosted_artifact(artifact: Artifact, *, texts: bool) -> Any:
    """A W&B artifact of `artifact`, to be logged.

    A release has its files there (in a bucket: references to them), a data set its description only; with `texts`
    both have all. Raises ArtifactError where a file is not what the manifest says.
    """
    import wandb

    manifest = artifact.manifest
    document = described(artifact)
    made = wandb.Artifact(
        collection(manifest.kind, manifest.recipe), TYPES[manifest.kind], metadata=document, incremental=False
    )
    with made.new_file(MANIFEST, encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
    names = [name for name in manifest.files if texts or (manifest.kind == "release" and name not in WITH_TEXTS)]
    for name in names:
        if artifact.store.local:
            # Neither copied nor cached: the store keeps it, and nobody changes it there.
            path = artifact.path / Path(name)
            made.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        else:
            made.add_reference(artifact.store.address(f"{artifact.ref}/{name}"), name=name, checksum=False)
    return made
