"""The export stage: fused ONNX, int8 or fp32 for the CPU and fp16 for CUDA, compared with the trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ArtifactError
from pipeline.job import Job
from pipeline.stages.find_or_build import find_or_build
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import ReleaseFigures
from pipeline.store.manifest import make_key

if TYPE_CHECKING:
    from pipeline.tracking.tracker import Tracker

VERSION = 4


def export(job: Job, validated: Artifact, trained: Artifact, evaluated: Artifact, decided: Artifact) -> Artifact:
    """Return a release: the ONNX files, `tokenizer.json`, `card.json` and `report.html`.

    `model.int8.onnx` (left out if it exceeds the recipe's parity bound) and `model.fp32.onnx` are for CPUs,
    `model.fp16.onnx` and `model.packed.onnx` (padding-free batches) for CUDA. The report shows `decided`.

    Each file except `model.packed.onnx`, which needs CUDA, is compared on a CPU with the trained fp32 model, on real
    sentences in padded batches. Raises ParityError if a difference exceeds the recipe's bound, LatencyError if the
    model exceeds the latency budget, ArtifactError if `decided` belongs to another evaluation.
    """
    recipe = job.recipe
    if decided.input_ref("evaluated") != evaluated.ref:
        raise ArtifactError(
            f"decision {decided.ref} does not belong to evaluation {evaluated.ref}; name the matching one with --input"
        )
    fields = {
        "export": recipe.export.model_dump(),
        "card": recipe.model_dump(include={"title", "labels", "score_range", "similar_at"}),
    }
    inputs = {"validated": validated, "trained": trained, "evaluated": evaluated}
    # A digest of refs, not keys, so that a model retrained with force gets another name.
    digest = make_key("release", VERSION, fields, {name: item.ref for name, item in inputs.items()})

    def build(draft: Path, tracker: Tracker) -> ReleaseFigures:
        # Imported here so that a finished release is reused without torch.
        from pipeline.export.convert import convert

        return convert(job, f"{recipe.name}-{digest}", validated, trained, evaluated, decided, draft, tracker)

    return find_or_build(job, "release", VERSION, fields=fields, inputs=inputs, build=build)
