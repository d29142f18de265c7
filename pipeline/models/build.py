"""Build the model to fine-tune from a recipe, freeze layers, and save the result."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
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
from pipeline.models.network import Network, bi_encoder_network, classifier_network
from pipeline.recipes.schema import Recipe

#: Names of the weights that only pretraining can give.
ENCODER = re.compile(r"(^|\.)(embeddings\w*|encoder)\.")
#: Types of transformers models that have a pooler unless told otherwise.
POOLERS = ("bert", "roberta")


def build_classifier(
    recipe: Recipe, base: Path | None, tokenizer: PreTrainedTokenizerFast, head: Mapping[str, Any]
) -> Network:
    """Return a sequence classifier before training, from the directory `base`, or from scratch if `base` is None.

    `head` are the fields of transformers' configuration that describe the outputs. Random weights come from torch's
    generator: seed it first. Raises BaseModelError if `base` cannot be loaded.
    """
    model = _transformer(AutoModelForSequenceClassification, recipe, base, tokenizer, head)
    if recipe.task.joins_texts:
        tell_texts_apart(model)
    return classifier_network(model, recipe.model.pooling)


def build_bi_encoder(recipe: Recipe, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> Network:
    """Return a bi-encoder before training; `base`, random weights and errors as in `build_classifier`."""
    # A bi-encoder pools states itself, so a pooler would never be trained.
    encoder = _transformer(AutoModel, recipe, base, tokenizer, {}, pooler=False)
    return bi_encoder_network(encoder, recipe.model.pooling)


def _transformer(
    kind: Any,
    recipe: Recipe,
    base: Path | None,
    tokenizer: PreTrainedTokenizerFast,
    head: Mapping[str, Any],
    *,
    pooler: bool = True,
) -> PreTrainedModel:
    hide_bars_in_logs()
    try:
        config: Any = _scratch_config(recipe, tokenizer) if base is None else AutoConfig.from_pretrained(base)
        config.update({**head, **_dropout(recipe)})
        options = {} if pooler or config.model_type not in POOLERS else {"add_pooling_layer": False}
        if base is None:
            model: PreTrainedModel = kind.from_config(config, **options)
        else:
            # In fp32 whatever the precision of the file, because fine-tuning in half precision diverges.
            model = _load(kind, base, config=config, dtype=torch.float32, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(f"base model {base} cannot be loaded: {error}") from error
    return model


def hide_bars_in_logs() -> None:
    """Turn off transformers' progress bars unless standard error is a terminal, because Airflow logs them as errors."""
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


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


def freeze_layers(transformer: PreTrainedModel, count: int) -> None:
    """Freeze the lowest `count` layers of a transformers model, counting the embeddings as the first.

    Raises BaseModelError if `count` is larger than the number of encoder layers.
    """
    if not count:
        return
    encoder: Any = transformer.base_model
    layers = encoder.encoder.layer
    if count > len(layers):
        raise BaseModelError(f"train.frozen_layers = {count} leaves no layer to train; set it to {len(layers)} or less")
    # ELECTRA projects its embeddings with a separate module (`embeddings_project`).
    below = [part for name, part in encoder.named_children() if name.startswith("embeddings")]
    for part in (*below, *layers[: count - 1]):
        part.requires_grad_(False)


def save_trained(transformer: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write model and tokenizer into `directory` in the format of transformers."""
    transformer.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
