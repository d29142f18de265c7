"""Padding-free (packed) batches: rows are concatenated, and each row attends only to itself."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

#: Name under which the packed attention is registered with transformers.
PACKED = "packed"
#: Model types (of transformers) with compatible encoders.
PACKED_TYPES = ("bert", "electra")
#: Head sizes that the kernel supports: multiples of the first number, up to the second.
HEAD_SIZES = (8, 256)


def can_pack(model: PreTrainedModel) -> bool:
    """Return whether `pack_rows` supports the encoder of `model`."""
    config: Any = model.config
    if config.model_type not in PACKED_TYPES:
        return False
    size: int = config.hidden_size // config.num_attention_heads
    return size % HEAD_SIZES[0] == 0 and size <= HEAD_SIZES[1]


def pack_rows(model: PreTrainedModel) -> None:
    """Make the layers of a BERT- or ELECTRA-shaped model skip the padding of a batch.

    Inputs and outputs stay padded: (batch, length) and (batch, length, hidden), or (batch, 1, hidden) after
    `compute_first_row`. States at padding become 0. Outputs and gradients do not change (up to rounding; dropout draws
    fewer numbers). Parameters and their names do not change. Do not export a model changed in this way. On CUDA it
    needs half precision and synchronizes with the GPU once per batch to read the number of tokens.
    """
    AttentionInterface.register(PACKED, attend)
    AttentionMaskInterface.register(PACKED, _as_it_is)
    model.set_attn_implementation(PACKED)
    encoder: Any = model.base_model.encoder
    encoder.forward = MethodType(_encode, encoder)


def compile_layers(model: PreTrainedModel, backend: str | Callable[..., Any] = "inductor") -> None:
    """Have torch compile each layer of a BERT- or ELECTRA-shaped model when it is first called.

    One graph serves all lengths, and identical layers share it. Layers are compiled in place: parameters, their names
    and therefore checkpoints do not change.
    """
    encoder: Any = model.base_model.encoder
    for layer in encoder.layer:
        layer.compile(dynamic=True, backend=backend)


def _as_it_is(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> Tensor | None:
    return attention_mask


def _encode(
    encoder: Any, states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
) -> BaseModelOutputWithPastAndCrossAttentions:
    """Return the output of the layers for the embeddings `states` (batch, length, hidden), with mask (batch, length).

    The output is padded as in `pack_rows`.
    """
    rows, length, hidden = states.shape
    mask = states.new_ones(rows, length, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    places = mask.flatten().nonzero().squeeze(1)
    starts = functional.pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
    packed = states.reshape(-1, hidden)[places].unsqueeze(0)
    for layer in encoder.layer:
        packed = layer(packed, cu_seq_lens_q=starts, cu_seq_lens_k=starts, max_length_q=length, max_length_k=length)
    if packed.shape[1] == rows:
        # One state per row: only [CLS] was computed, or every row has one token.
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=packed.transpose(0, 1))
    padded = packed.new_zeros(rows * length, hidden).index_copy(0, places, packed[0])
    return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=padded.view(rows, length, hidden))


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    max_length_q: int,
    max_length_k: int,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the attention within each row: (1, heads, tokens, size) to (1, tokens, heads, size).

    This is the signature that transformers calls. Row n of the queries is `cu_seq_lens_q[n]` to `cu_seq_lens_q[n + 1]`,
    at most `max_length_q` tokens; keys and values likewise. CUDA uses torch's variable-length kernel, other devices
    the reference implementation.
    """
    query, key, value = (item.squeeze(0).transpose(0, 1) for item in (query, key, value))
    starts, longest = (cu_seq_lens_q, cu_seq_lens_k), (max_length_q, max_length_k)
    if query.is_cuda:
        seen = attend_on_cuda(query, key, value, starts, longest, dropout, scaling)
    else:
        seen = attend_by_rows(query, key, value, starts, longest, dropout, scaling)
    return seen.unsqueeze(0), None


def attend_on_cuda(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Return torch's FlashAttention within rows: (tokens, heads, size) to the same shape, in bf16 or fp16."""
    # torch's public function, `varlen_attn`, calls the same kernel but has no dropout.
    kernel = torch.ops.aten._flash_attention_forward
    seen: Tensor = kernel(query, key, value, *starts, *longest, dropout, False, False, scale=scaling)[0]
    return seen


def attend_by_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Return the same result with padded matrix products, on any device and in any precision."""
    rows = len(starts[0]) - 1
    places = [_places(len(tokens), ends) for tokens, ends in zip((query, key), starts, strict=True)]
    query, key, value = (
        tokens.new_zeros(rows, length, *tokens.shape[1:]).index_put(place, tokens).transpose(1, 2)
        for tokens, length, place in zip(
            (query, key, value), (longest[0], *longest[1:] * 2), (places[0], places[1], places[1]), strict=True
        )
    )
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    padding = torch.arange(longest[1], device=scores.device) >= starts[1].diff()[:, None]
    shares = scores.masked_fill(padding[:, None, None], -torch.inf).softmax(-1, dtype=torch.float32).to(value.dtype)
    seen = functional.dropout(shares, dropout) @ value
    return seen.transpose(1, 2)[places[0]]


def _places(tokens: int, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row of each token and its position in that row, (tokens,) each."""
    numbers = torch.arange(tokens, device=starts.device)
    rows = torch.bucketize(numbers, starts[1:], right=True)
    return rows, numbers - starts[rows]
