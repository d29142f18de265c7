"""Models: what is fine-tuned, how rows become batches, and what a trained one answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pipeline.errors import BaseModelError, BrokenModelError
from pipeline.models.hardware import best_device
from pipeline.models.heads import BiEncoder, PooledClassifier
from pipeline.models.tokenizer import Encoder, load_tokenizer
from pipeline.progress import progress
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.releases import Calibration
from pipeline.training.samplers import cut

#: Tokens, padding included, in one batch of a forward pass without gradients.
TOKENS = 8192


def build_model(recipe: Recipe, base: Path | None, tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    """The untrained model of a recipe: from the directory `base`, or from nothing where that is None.

    Random weights come from torch's generator: seed it first. Raises BaseModelError where `base` cannot be read.
    """
    head = {} if recipe.model.objective == "bi-encoder" else _head(recipe)
    try:
        config = _scratch_config(recipe, tokenizer) if base is None else AutoConfig.from_pretrained(base)
        config.update(head | _dropout(recipe))
        return _instantiate(recipe, base, config)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(f"base model {base} cannot be loaded: {error}") from error


def _instantiate(recipe: Recipe, base: Path | None, config: Any) -> nn.Module:
    paired = recipe.model.objective == "bi-encoder"
    kind: Any = AutoModel if paired else AutoModelForSequenceClassification
    # A pooler would be trained by nothing: the vectors are means.
    options = {"add_pooling_layer": False} if paired and config.model_type in ("bert", "roberta") else {}
    if base is None:
        model = kind.from_config(config, **options)
    else:
        # Whatever precision its file is in: fine-tuning in halves diverges.
        model = kind.from_pretrained(base, config=config, dtype=torch.float32, **options)
    if recipe.model.objective == "cross-encoder":
        tell_texts_apart(model)
    pooling = recipe.model.pooling
    if paired:
        return BiEncoder(model, pooling)
    # transformers' own head reads [CLS].
    return model if pooling == "cls" else PooledClassifier(model, pooling)


def tell_texts_apart(model: PreTrainedModel) -> None:
    """Give the second text of a pair a token type where there is but one (RoBERTa's), at first the same as that."""
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


class Rows(Dataset[dict[str, Any]]):
    """Encoded rows as the Trainer wants them: one dictionary a row."""

    def __init__(self, table: pd.DataFrame, columns: Sequence[str]) -> None:
        """`columns` of `table` are handed on."""
        self._columns = {name: table[name].tolist() for name in columns}
        self._length = len(table)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._columns.items()}


def load_rows(file: Path, *, by_length: bool = False) -> Rows:
    """The rows of one side of a tokenize artifact: as they are there, or by length."""
    table = pd.read_parquet(file)
    if by_length:
        # The longest first: if they do not fit into memory, that is seen at once.
        table = table.sort_values("length", ascending=False, kind="stable")
    return Rows(table, [name for name in table.columns if name not in ("id", "length")])


@dataclass(frozen=True)
class Collate:
    """Rows to a batch, padded on the right to its own longest row; attention masks come from the lengths."""

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Tensors (batch, length) for each column of ids, (batch,) for the labels."""
        batch: dict[str, Tensor] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            if name == "label":
                kind = torch.float32 if isinstance(values[0], float) else torch.long
                batch["labels"] = torch.tensor(values, dtype=kind)
                continue
            batch[name] = _pad(values, 0 if name == "token_type_ids" else self.pad)
            if name != "token_type_ids":
                mask = [np.ones(len(value), np.int64) for value in values]
                batch[name.replace("input_ids", "attention_mask")] = _pad(mask, 0)
        return batch


def _pad(values: Sequence[np.ndarray[Any, Any]], filler: int) -> Tensor:
    padded = np.full((len(values), max(map(len, values))), filler, np.int64)
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value
    return torch.from_numpy(padded)


def answers_of(recipe: Recipe, outputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Raw outputs to answers: probabilities (n, labels) of a classification, else one number (n,)."""
    if recipe.kind == "regression":
        return np.asarray(outputs.reshape(-1))
    shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to answer, in fp32; the lines to scores are a bi-encoder's (`pipeline.fit`)."""

    recipe: Recipe
    module: nn.Module
    tokenizer: PreTrainedTokenizerFast
    calibration: Calibration | None
    euclidean: Calibration | None
    device: torch.device

    def answer(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Answers to texts: `text` and `text_pair` columns to probabilities (n, labels) or scores (n,)."""
        encoder = Encoder(self.tokenizer, self.recipe.model.max_length, self.recipe.model.objective)
        return self.answer_encoded(encoder.encode(rows).rows)

    def answer_encoded(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Answers to the rows of a tokenize artifact; scores are clipped to the recipe's range.

        Raises BrokenModelError where one is no number.
        """
        return to_score(self.recipe, self.calibration, self.raw_answers(table))

    def raw_answers(self, table: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Answers before they are brought to scores: cosines (n,) of a bi-encoder. Raises BrokenModelError too."""
        outputs = run_rows("answering", table, self.tokenizer.pad_token_id, self.device, self._logits)
        answers = answers_of(self.recipe, outputs)
        broken = ~np.isfinite(answers.reshape(len(table), -1)).all(axis=1)
        if broken.any():
            # The largest of what is no number would be the first label, and look like an answer.
            raise BrokenModelError(
                f"the model answers {broken.sum():,} of {len(table):,} inputs with what is no number; train it again"
            )
        return answers

    def _logits(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.module(**inputs)["logits"]
        return logits


@torch.inference_mode()
def run_rows(
    what: str, table: pd.DataFrame, pad: int, device: torch.device, call: Callable[..., Tensor]
) -> np.ndarray[Any, Any]:
    """What `call` makes (batch, ...) of the rows of a tokenize artifact, in their order (n, ...), in fp32.

    They come in batches of rows that are about as long as each other; `what` names the work for who watches it.
    """
    rows = Rows(table, [name for name in table.columns if name not in ("id", "length", "label")])
    collate = Collate(pad)
    outputs: list[np.ndarray[Any, Any] | None] = [None] * len(rows)
    lengths = table["length"].to_numpy()
    with progress(what, len(rows)) as advance:
        for batch in cut(lengths, np.argsort(lengths, kind="stable"), TOKENS):
            inputs = collate([rows[index] for index in batch])
            result = call(**{name: tensor.to(device) for name, tensor in inputs.items()})
            for index, value in zip(batch, result.float().cpu().numpy(), strict=True):
                outputs[index] = value
            advance(len(batch))
    return np.stack([value for value in outputs if value is not None])


def to_score(recipe: Recipe, calibration: Calibration | None, answers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Calibrate a regression's answers and clip them to the score range; probabilities pass through."""
    if recipe.score_range is None:
        return answers
    if calibration is not None:
        answers = calibration.slope * answers + calibration.intercept
    low, high = recipe.score_range
    return np.asarray(np.clip(answers, low, high))


def distances_of(cosines: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Euclidean distances (n,), 0 to 2, of unit vectors whose cosines are these."""
    return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * cosines)))


def transformer_of(module: nn.Module) -> PreTrainedModel:
    """The transformers model of what `build_model` made."""
    inner = module
    if isinstance(module, BiEncoder):
        inner = module.encoder
    elif isinstance(module, PooledClassifier):
        inner = module.classifier
    assert isinstance(inner, PreTrainedModel)
    return inner


def freeze_layers(module: nn.Module, count: int) -> None:
    """Take the lowest `count` layers of what `build_model` made, the embeddings first, out of training.

    Raises BaseModelError where none would be left.
    """
    if not count:
        return
    encoder: Any = transformer_of(module).base_model
    layers = encoder.encoder.layer
    if count > len(layers):
        raise BaseModelError(f"train.frozen_layers ({count}) leaves nothing to train; it is at most {len(layers)} here")
    # ELECTRA widens its embeddings by a matrix of its own.
    below = [part for name, part in encoder.named_children() if name.startswith("embeddings")]
    for part in (*below, *layers[: count - 1]):
        part.requires_grad_(False)


def save_trained(module: nn.Module, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write model and tokenizer as transformers writes them."""
    transformer_of(module).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def load_trained(recipe: Recipe, trained: Artifact, device: torch.device | None = None) -> Trained:
    """Load a train artifact in fp32, on `device` or where this machine trains.

    Only what the artifact itself says is used of its shape, so that an older model of another shape loads too.
    """
    directory = trained.path / "model"
    fields = trained.manifest.fields
    # Of a model older than the choice, what it then was.
    pooling = fields.get("pooling", "mean" if fields["objective"] == "bi-encoder" else "cls")
    shape = recipe.model.model_copy(
        update={"objective": fields["objective"], "max_length": fields["max_length"], "pooling": pooling}
    )
    scale = fields["calibrated_to"]
    as_trained = recipe.model_copy(
        update={"model": shape, "labels": tuple(fields["labels"]), "score_range": tuple(scale) if scale else None}
    )
    lines = [trained.figures.get(name) for name in ("calibration", "euclidean")]
    calibration, euclidean = (Calibration(**line) if line else None for line in lines)
    tokenizer = load_tokenizer(directory)
    where = device or best_device()
    module = build_model(as_trained, directory, tokenizer).to(where).eval()
    return Trained(as_trained, module, tokenizer, calibration, euclidean, where)
