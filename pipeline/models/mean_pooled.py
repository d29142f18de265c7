"""Sequence classifiers with mean pooling as models of transformers. Published beside `heads.py`, as they are here.

`AutoModelForSequenceClassification.from_pretrained(..., trust_remote_code=True)` loads them. They have model types of
their own: as a plain BERT, transformers would also load them without this code, and then pool [CLS].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from .heads import Head, mean_state


class MeanPooled(PreTrainedModel):
    """Mixin for a sequence classifier of transformers, whose head then reads the mean of all states."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Return `logits` (batch, labels) of `input_ids` (batch, length), and `loss` if `labels` (batch,) are given."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        encoder: Any = self.base_model
        states = encoder(input_ids=input_ids, attention_mask=mask, **types).last_hidden_state
        return SequenceClassifierOutput(**Head(self)(mean_state(states, mask), labels))


class MeanPooledBertConfig(BertConfig):
    """Configuration of a BERT classifier with mean pooling."""

    model_type = "mean_pooled_bert"


class MeanPooledBertForSequenceClassification(MeanPooled, BertForSequenceClassification):
    """BERT classifier with mean pooling."""

    config_class = MeanPooledBertConfig


class MeanPooledElectraConfig(ElectraConfig):
    """Configuration of an ELECTRA classifier with mean pooling."""

    model_type = "mean_pooled_electra"


class MeanPooledElectraForSequenceClassification(MeanPooled, ElectraForSequenceClassification):
    """ELECTRA classifier with mean pooling."""

    config_class = MeanPooledElectraConfig


class MeanPooledRobertaConfig(RobertaConfig):
    """Configuration of a RoBERTa classifier with mean pooling."""

    model_type = "mean_pooled_roberta"


class MeanPooledRobertaForSequenceClassification(MeanPooled, RobertaForSequenceClassification):
    """RoBERTa classifier with mean pooling."""

    config_class = MeanPooledRobertaConfig
