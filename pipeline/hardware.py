"""What this machine computes with, asked of torch."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_attention() -> str:
    """The form of attention, by transformers' name, that trains fastest on this machine.

    torch's fused attention takes four times as long as products of matrices for short bf16 inputs on a CPU.
    """
    return "eager" if best_device().type == "cpu" and has_bf16() else "sdpa"


def has_bf16() -> bool:
    """Whether this machine multiplies bf16 in hardware."""
    if best_device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
