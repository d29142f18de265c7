"""A model on an encoder with everything that training and export need to know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.models.heads import BiEncoder, PooledClassifier, correlation_loss


@dataclass(frozen=True)
class Network:
    """The module that is trained, and the transformers model inside."""

    module: nn.Module
    "Its output for a batch has `logits`, and `loss` if the batch has labels."
    transformer: PreTrainedModel
    read: Callable[..., Tensor]
    "Function from the token ids, mask and types of one input to the output that is exported."
    output: Literal["logits", "vectors"]
    "Name of the exported output."
    reads_first: bool = False
    "Whether the head reads [CLS] alone, through transformers' own code."
    compare: Callable[[Tensor, Tensor], Tensor] | None = None
    "The loss of logits and labels (batch,), if it compares the rows of a batch instead of being a mean over rows."


def classifier_network(classifier: PreTrainedModel, pooling: str) -> Network:
    """Return a sequence classifier of transformers with `pooling`, a key of `heads.POOLINGS`."""
    # transformers' own head reads [CLS].
    first = pooling == "cls"
    module = classifier if first else PooledClassifier(classifier, pooling)

    def read(**inputs: Tensor) -> Tensor:
        logits: Tensor = module(**inputs)["logits"]
        return logits

    return Network(module, classifier, read, "logits", reads_first=first)


def bi_encoder_network(encoder: PreTrainedModel, pooling: str) -> Network:
    """Return a bi-encoder on `encoder` with `pooling`."""
    module = BiEncoder(encoder, pooling)
    return Network(module, encoder, module.vectors, "vectors", compare=correlation_loss)
