"""Export: a trained model as fused ONNX, int8 or fp32 for the CPU, fp16 for CUDA, held against the original."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ArtifactError
from pipeline.job import Job
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact
from pipeline.store.manifest import make_key

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

VERSION = 4


def export(job: Job, validated: Artifact, trained: Artifact, evaluated: Artifact, decided: Artifact) -> Artifact:
    """A release: the ONNX files, `tokenizer.json`, `card.json` and `report.html`.

    `model.int8.onnx`, left out where it is beyond the recipe's bound, and `model.fp32.onnx` are for CPUs; for CUDA are
    `model.fp16.onnx` and `model.packed.onnx`, which computes no padding.

    `decided` is shown in the report. Each file but the last, which only CUDA can run, is compared on a CPU with the
    trained model in fp32, on real sentences in padded batches. Raises ParityError beyond the recipe's bound,
    LatencyError beyond its budget, ArtifactError where `decided` is about another evaluation.
    """
    recipe = job.recipe
    if decided.input_ref("evaluated") != evaluated.ref:
        raise ArtifactError(f"{decided.ref} is no decision about {evaluated.ref}; name the one that is, with --input")
    fields = {
        "export": recipe.export.model_dump(),
        "card": recipe.model_dump(include={"title", "labels", "score_range", "similar_at"}),
    }
    inputs = {"validated": validated, "trained": trained, "evaluated": evaluated}
    # Of refs and not of keys: made again with force, other weights have another name.
    digest = make_key("release", VERSION, fields, {name: item.ref for name, item in inputs.items()})

    def build(draft: Path, _: Tracker) -> dict[str, Any]:
        # Here and not at the top: a finished release is found again without torch.
        from pipeline.export.convert import convert

        return convert(job, f"{recipe.name}-{digest}", validated, trained, evaluated, decided, draft)

    return find_or_build(job, "release", VERSION, fields=fields, inputs=inputs, build=build)
