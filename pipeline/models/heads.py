"""Pooling and task heads on top of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel


def first_state(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the [CLS] state (batch, hidden) of `states` (batch, length, hidden)."""
    return states[:, 0]


def mean_state(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean (batch, hidden) of `states` (batch, length, hidden) over the tokens in `attention_mask`."""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


#: Pooling functions by the value of `model.pooling` in a recipe.
POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"cls": first_state, "mean": mean_state}


class Head(nn.Module):
    """Head of a BERT- or ELECTRA-shaped sequence classifier, applied to one vector per text."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        """Share the modules of `classifier`, so that training the head trains the classifier."""
        super().__init__()
        whole: Any = classifier
        self.scores = whole.config.num_labels == 1
        pooler = getattr(whole.base_model, "pooler", None)
        # ELECTRA has no pooler, and its head includes dropout.
        self.features = nn.Identity() if pooler is None else nn.Sequential(pooler, whole.dropout)
        self.classifier: nn.Module = whole.classifier

    def forward(self, states: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Return `logits` (batch, labels) for `states` (batch, hidden), and `loss` if `labels` (batch,) are given."""
        logits = self.classifier(self.features(states[:, None]))
        if labels is None:
            return {"logits": logits}
        if self.scores:
            return {"loss": functional.mse_loss(logits[:, 0], labels), "logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class PooledClassifier(nn.Module):
    """A sequence classifier of transformers with another pooling than [CLS]."""

    def __init__(self, classifier: PreTrainedModel, pooling: str) -> None:
        """`pooling` is a key of `POOLINGS`."""
        super().__init__()
        self.classifier = classifier
        self.pooling = pooling
        # Kept in a tuple so that torch does not register the shared parameters a second time.
        self._head = (Head(classifier),)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return `logits` (batch, labels) of `input_ids` (batch, length), and `loss` if `labels` (batch,) are given."""
        inputs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        encoder: Any = self.classifier.base_model
        states = encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        result: dict[str, Tensor] = self._head[0](POOLINGS[self.pooling](states, attention_mask), labels)
        return result


class BiEncoder(nn.Module):
    """One encoder for both texts: the cosine of their L2-normalised vectors measures similarity."""

    def __init__(self, encoder: nn.Module, pooling: str) -> None:
        """`encoder` is a transformers model with `last_hidden_state`, `pooling` a key of `POOLINGS`."""
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    def vectors(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return unit vectors (batch, hidden) of `input_ids` (batch, length)."""
        inputs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        pooled = POOLINGS[self.pooling](states, attention_mask).float()
        # Not `functional.normalize`: ONNX Runtime's shape inference, which fusion needs, fails on its norm.
        vectors: Tensor = pooled / torch.sqrt((pooled * pooled).sum(-1, keepdim=True) + 1e-12)
        return vectors

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        input_ids_pair: Tensor,
        attention_mask_pair: Tensor,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return cosines (batch,) as `logits`, and `loss` if `labels` (batch,) are given."""
        left = self.vectors(input_ids, attention_mask)
        right = self.vectors(input_ids_pair, attention_mask_pair)
        cosines = (left * right).sum(-1)
        if labels is None:
            return {"logits": cosines}
        return {"loss": correlation_loss(cosines, labels), "logits": cosines}


def correlation_loss(cosines: Tensor, labels: Tensor) -> Tensor:
    """Return 1 minus Pearson's r of `cosines` and `labels` (batch,), the metric itself; 1 if either is constant."""
    left, right = (side - side.mean() for side in (cosines, labels))
    # The constant avoids NaN gradients in a batch with a single label value.
    size = left.norm() * right.norm() + 1e-6
    loss: Tensor = 1 - (left * right).sum() / size
    return loss
