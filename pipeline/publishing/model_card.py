"""The model card of a release: data, licences, metrics with intervals, and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pipeline.models.base_model import shipped
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import EvaluationFigures, TrainingFigures, ValidationFigures
from pipeline.store.releases import Card
from pipeline.templates import templates_in


def render_card(
    recipe: Recipe, card: Card, training: TrainingFigures, evaluated: Artifact, *, custom_code: bool
) -> str:
    """Return the model card as Markdown with the hub's metadata; `custom_code`: transformers needs trust_remote_code.

    Raises ArtifactError if the evaluation or the validated data was deleted.
    """
    evaluation = EvaluationFigures.read(evaluated)
    text = (
        templates_in(Path(__file__).parent)
        .get_template("model_card.md")
        .render(
            recipe=recipe,
            card=card,
            base=_base_words(training),
            evaluation=evaluation,
            data=ValidationFigures.read(evaluated.input("validated")),
            custom_code=custom_code,
        )
    )
    return f"---\n{_metadata(recipe, card, training, evaluation).to_yaml()}\n---\n\n{text}"


def _metadata(recipe: Recipe, card: Card, training: TrainingFigures, evaluation: EvaluationFigures) -> ModelCardData:
    vectors = card.task.has_vectors
    task = "sentence-similarity" if vectors else "text-classification"
    base = training.base.base
    on_hub = base != SCRATCH and shipped(base) is None and not Path(base).is_absolute()
    hub = recipe.source and recipe.source.hub
    return ModelCardData(
        language="ko",
        library_name="sentence-transformers" if vectors else "transformers",
        pipeline_tag=task,
        tags=["saebyeok", *(["sentence-transformers"] if vectors else []), *(["synthetic"] if card.sample else [])],
        base_model=base if on_hub else None,
        datasets=[hub.dataset] if hub and not card.sample else None,
        model_name=card.title,
        # Figures on the synthetic sample must not be compared with figures on real data.
        eval_results=None if card.sample else list(_results(recipe, task, evaluation)),
    )


def _results(recipe: Recipe, task: str, evaluation: EvaluationFigures) -> list[EvalResult]:
    hub: Any = recipe.source and recipe.source.hub
    return [
        EvalResult(
            task_type=task,
            dataset_type=hub.dataset if hub else recipe.name,
            dataset_name=recipe.title,
            metric_type=metric,
            metric_value=round(figure.value, 4),
        )
        for metric, figure in evaluation.test.items()
    ]


def _base_words(training: TrainingFigures) -> str:
    """Return the base model with its licence, or where to find it, as a phrase."""
    base = training.base.base
    if base == SCRATCH:
        return "none; the encoder was trained from scratch on the training data"
    if directory := shipped(base):
        return f"`{base}`, which ships with Saebyeok (licence {ModelCard.load(directory / 'README.md').data.license})"
    if Path(base).is_absolute():
        return f"a local model, `{Path(base).name}`; its licence applies too"
    return f"[{base}](https://huggingface.co/{base}), revision `{training.base.revision}`; its licence applies too"
