"""Build the model to fine-tune from a recipe, freeze layers, and save the result."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from pipeline.errors import BaseModelError
from pipeline.models.heads import BiEncoder, PooledClassifier
from pipeline.recipes.schema import Recipe

#: Names of the weights that only pretraining can give.
ENCODER = re.compile(r"(^|\.)(embeddings\w*|encoder)\.")


def build_model(recipe: Recipe, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    """Return the model of a recipe before training, from the directory `base`, or from scratch if `base` is None.

    Random weights come from torch's generator: seed it first. Raises BaseModelError if `base` cannot be loaded.
    """
    head = {} if recipe.model.objective == "bi-encoder" else _head(recipe)
    try:
        config = _scratch_config(recipe, tokenizer) if base is None else AutoConfig.from_pretrained(base)
        config.update(head | _dropout(recipe))
        return _instantiate(recipe, base, config)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(f"base model {base} cannot be loaded: {error}") from error


def hide_bars_in_logs() -> None:
    """Turn off transformers' progress bars unless standard error is a terminal: Airflow logs their lines as errors."""
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _instantiate(recipe: Recipe, base: Path | None, config: Any) -> nn.Module:
    hide_bars_in_logs()
    paired = recipe.model.objective == "bi-encoder"
    kind: Any = AutoModel if paired else AutoModelForSequenceClassification
    # A bi-encoder pools states itself, so a pooler would never be trained.
    options = {"add_pooling_layer": False} if paired and config.model_type in ("bert", "roberta") else {}
    if base is None:
        model = kind.from_config(config, **options)
    else:
        # In fp32 whatever the precision of the file, because fine-tuning in half precision diverges.
        model = _load(kind, base, config=config, dtype=torch.float32, **options)
    if recipe.model.objective == "cross-encoder":
        tell_texts_apart(model)
    pooling = recipe.model.pooling
    if paired:
        return BiEncoder(model, pooling)
    # transformers' own head reads [CLS].
    return model if pooling == "cls" else PooledClassifier(model, pooling)


def _load(kind: Any, base: Path, **options: Any) -> Any:
    """Return the model with the weights in `base`. Raises BaseModelError if they lack a part of the encoder."""
    model, found = kind.from_pretrained(base, output_loading_info=True, **options)
    # A base model has neither a head nor, in some cases, a pooler. transformers initializes all that is missing.
    missing = sorted(name for name in found["missing_keys"] if ENCODER.search(name))
    if missing:
        raise BaseModelError(
            f"base model {base} lacks {len(missing)} weights of its encoder, such as {missing[0]}; check that its "
            "weights and its config.json belong together"
        )
    return model


def tell_texts_apart(model: PreTrainedModel) -> None:
    """Add a token type for the second text of a pair if there is only one (RoBERTa), as a copy of the first."""
    embeddings: Any = model.base_model.embeddings
    only = embeddings.token_type_embeddings.weight.data
    if len(only) == 1:
        embeddings.token_type_embeddings = nn.Embedding(2, only.shape[1], _weight=only.repeat(2, 1))
        model.config.type_vocab_size = 2


def _dropout(recipe: Recipe) -> dict[str, float]:
    share = recipe.train.dropout
    return {} if share is None else {"hidden_dropout_prob": share, "attention_probs_dropout_prob": share}


def _head(recipe: Recipe) -> dict[str, Any]:
    if recipe.kind == "regression":
        return {"num_labels": 1, "problem_type": "regression"}
    names = dict(enumerate(recipe.labels))
    return {
        "num_labels": len(names),
        "problem_type": "single_label_classification",
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
    }


def _scratch_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> BertConfig:
    shape = recipe.model.scratch
    assert shape is not None  # the recipe's own rule
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=recipe.model.max_length,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        pad_token_id=tokenizer.pad_token_id,
    )


def transformer_of(module: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside a model of `build_model`."""
    inner = module
    if isinstance(module, BiEncoder):
        inner = module.encoder
    elif isinstance(module, PooledClassifier):
        inner = module.classifier
    assert isinstance(inner, PreTrainedModel)
    return inner


def freeze_layers(module: nn.Module, count: int) -> None:
    """Freeze the lowest `count` layers of a model of `build_model`, counting the embeddings as the first.

    Raises BaseModelError if `count` is larger than the number of encoder layers.
    """
    if not count:
        return
    encoder: Any = transformer_of(module).base_model
    layers = encoder.encoder.layer
    if count > len(layers):
        raise BaseModelError(f"train.frozen_layers ({count}) leaves nothing to train; it is at most {len(layers)} here")
    # ELECTRA projects its embeddings with a separate module (`embeddings_project`).
    below = [part for name, part in encoder.named_children() if name.startswith("embeddings")]
    for part in (*below, *layers[: count - 1]):
        part.requires_grad_(False)


def save_trained(module: nn.Module, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write model and tokenizer into `directory` in the format of transformers."""
    transformer_of(module).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
