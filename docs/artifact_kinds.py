"""The artifacts of docs/reference/artifacts.md."""

from __future__ import annotations

from docs.fields import field_table
from docs.generated import REFERENCE, code, table
from pipeline.stages.stage import DECIDE, EVALUATE, EXPORT, STAGES, TOKENIZE, TRAIN, VALIDATE, Stage
from pipeline.store import figures
from pipeline.store.decisions import Decision
from pipeline.store.manifest import FileEntry, Input, Manifest
from pipeline.store.releases import Card

PAGE = REFERENCE / "artifacts.md"
FIGURES: dict[Stage, type[figures.Figures]] = {
    VALIDATE: figures.ValidationFigures,
    TOKENIZE: figures.TokenizationFigures,
    TRAIN: figures.TrainingFigures,
    EVALUATE: figures.EvaluationFigures,
    DECIDE: figures.DecisionFigures,
    EXPORT: figures.ReleaseFigures,
}


def sections() -> dict[str, str]:
    """Return the kinds of artifacts, the manifest, the figures of each stage, and the records."""
    kinds = [(f"`{stage.kind}`", f"`{stage.name}`", ", ".join(map(code, stage.inputs))) for stage in STAGES]
    records = (("", Manifest), ("An item of `inputs`:\n\n", Input), ("An item of `files`:\n\n", FileEntry))
    parts = [f"### Figures of {stage.name}\n\n{field_table(model)}" for stage, model in FIGURES.items()]
    return {
        "kinds": table(("Kind", "Built by", "Built from"), kinds),
        "manifest": "\n".join(f"{title}{field_table(model)}" for title, model in records),
        "figures": "\n".join(parts),
        "decision": field_table(Decision),
        "card": field_table(Card),
    }
