"""Compute the last layer for [CLS] only, for heads that do not read the other tokens."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward


def compute_first_row(classifier: PreTrainedModel) -> None:
    """Make the encoder of a BERT- or ELECTRA-shaped sequence classifier compute only [CLS] in its last layer.

    Outputs and gradients do not change (up to rounding; dropout draws fewer numbers). `last_hidden_state` becomes
    (batch, 1, hidden). Parameters and their names do not change. Do not export a model changed in this way.
    """
    encoder: Any = classifier.base_model.encoder
    layer = encoder.layer[-1]
    layer.forward = MethodType(_first_row, layer)


def _first_row(layer: Any, states: Tensor, attention_mask: Tensor | None = None, *_: Any, **options: Any) -> Tensor:
    """Return the layer's output (batch, 1, hidden) for the first of `states` (batch, length, hidden).

    The first token attends to all tokens. For packed rows, `states` (1, tokens, hidden), return (1, batch, hidden).
    """
    attention = layer.attention.self
    if (starts := options.get("cu_seq_lens_k")) is None:
        first, options = states[:, :1], {}
    else:
        first = states[:, starts[:-1]]
        one_each = torch.arange(len(starts), device=starts.device, dtype=starts.dtype)
        options |= {"cu_seq_lens_q": one_each, "max_length_q": 1}
    query, key, value = (
        project(rows).view(len(rows), -1, attention.num_attention_heads, attention.attention_head_size).transpose(1, 2)
        for project, rows in ((attention.query, first), (attention.key, states), (attention.value, states))
    )
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    seen, _ = attend(
        attention,
        query,
        key,
        value,
        None if attention_mask is None else attention_mask[:, :, :1],
        dropout=attention.dropout.p if layer.training else 0.0,
        scaling=attention.scaling,
        **options,
    )
    output: Tensor = layer.feed_forward_chunk(layer.attention.output(seen.reshape(first.shape), first))
    return output
