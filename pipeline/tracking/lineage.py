"""Lineage at Weights & Biases: which artifacts of the store it knows, their names and their content there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.store.artifacts import MANIFEST, Artifact

#: Kind of an artifact to the stage that makes it, if their names differ.
STAGE_OF = {"release": "export"}


#: Kind to W&B's artifact type; artifacts of other kinds are intermediate and stay in the store.
HOSTED_TYPES = {"validate": "dataset", "release": "model"}
#: Files of a release that contain texts of the data: golden sentences and mistakes.
WITH_TEXTS = ("card.json", "report.html")
CHAMPION = "champion"


def collection(kind: str, recipe: str) -> str:
    """Return the W&B name of artifacts of this kind, such as `nsmc-data` or `nsmc`."""
    return f"{recipe}-data" if kind == "validate" else recipe


def hosted_name(ref: str) -> tuple[str, str]:
    """Return the W&B collection and alias of the artifact at `ref`; the alias is its unique attempt."""
    kind, recipe, _, attempt = ref.split("/")
    return collection(kind, recipe), attempt


def sources(artifacts: Iterable[Artifact]) -> list[str]:
    """Return the refs of `artifacts`, or of the nearest ones that they were made from, that W&B knows."""
    return list(dict.fromkeys(ref for artifact in artifacts for ref in _nearest(artifact)))


def _nearest(artifact: Artifact) -> Iterator[str]:
    if artifact.manifest.kind in HOSTED_TYPES:
        yield artifact.ref
        return
    for ref in artifact.made_from:
        yield from _nearest(artifact.store.open(ref))


def described(artifact: Artifact) -> dict[str, Any]:
    """Return the manifest for W&B, without texts of the data and without sentences that may quote them."""
    document = artifact.manifest.model_dump(mode="json")
    figures = {name: value for name, value in document["figures"].items() if not _sentences(value)}
    return document | {"ref": artifact.ref, "uri": artifact.uri, "figures": figures}


def _sentences(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, str) for item in value)


def hosted_artifact(artifact: Artifact, *, texts: bool) -> Any:
    """Return a W&B artifact of `artifact`, ready to be logged.

    A release includes its files (references to them if the store is a bucket), a data set only its description; with
    `texts`, both include all files. Raises ArtifactError if a file differs from the manifest.
    """
    import wandb

    manifest = artifact.manifest
    document = described(artifact)
    made = wandb.Artifact(
        collection(manifest.kind, manifest.recipe), HOSTED_TYPES[manifest.kind], metadata=document, incremental=False
    )
    with made.new_file(MANIFEST, encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
    names = [name for name in manifest.files if texts or (manifest.kind == "release" and name not in WITH_TEXTS)]
    for name in names:
        if artifact.store.local:
            # Not copied or cached: the file stays in the store unchanged.
            path = artifact.path / Path(name)
            made.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        else:
            made.add_reference(artifact.store.address(f"{artifact.ref}/{name}"), name=name, checksum=False)
    return made
