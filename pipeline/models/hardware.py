"""What this machine computes with, asked of torch."""

from __future__ import annotations

import os

import torch

#: Steps from which compiling is taken to pay. Neither side is measured: it is reckoned with a minute for compiling
#: (less where an earlier night has left its cache) and a saving of some ten milliseconds a step.
WORTH = 6000
#: Rows of a batch that a GPU must have for itself. Not measured: with fewer, starting its kernels is taken to be what
#: takes the time, and that is no less for a part of the rows.
SHARE = 32
#: Rows of a batch that a thread on a CPU must have for itself. What a step of `mini` costs however few rows there
#: are, as the gradients of the embeddings, is some 30 ms of one thread; 16 short rows take as long again.
PER_THREAD = 16
#: Values of oneDNN's variable ONEDNN_MAX_CPU_ISA with which no product is computed by bf16 instructions. torch computes
#: its products of matrices by oneDNN, which then emulates them.
NO_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def best_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_attention() -> str:
    """The form of attention, by transformers' name, that trains fastest on this machine.

    torch's fused attention takes four times as long as products of matrices for short bf16 inputs on a CPU.
    """
    return "eager" if best_device().type == "cpu" and has_bf16() else "sdpa"


def packs_rows(*, mixed: bool) -> bool:
    """Whether batches are trained on without their padding: on CUDA where torch brings the kernel for it.

    It wants bf16, as GPUs from Ampere on have it. On a CPU it pays where rows of all lengths are `mixed` in a batch.
    """
    if best_device().type == "cpu":
        return mixed
    return best_device().type == "cuda" and has_bf16() and torch.backends.cuda.is_flash_attention_available()


def compiles(steps: int) -> bool:
    """Whether layers are compiled for a training of so many steps: on CUDA, where it is long enough (`WORTH`)."""
    return best_device().type == "cuda" and steps >= WORTH


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def training_processes(rows: int) -> int:
    """How many processes train together, a GPU each, where a batch has so many rows; 1 without a GPU.

    Each has at least `SHARE` of them. CUDA_VISIBLE_DEVICES says which GPUs there are. On a CPU it is threads that share
    a batch (`batch_threads`).
    """
    if best_device().type != "cuda":
        return 1
    return max(1, min(torch.cuda.device_count(), rows // SHARE))


def batch_threads(rows: int, threads: int) -> int:
    """How many of `threads` on a CPU share a batch of so many rows, at least `PER_THREAD` each; 1 on a GPU."""
    return 1 if best_device().type != "cpu" else max(1, min(threads, rows // PER_THREAD))


def gpu_memory() -> dict[str, float]:
    """`gpu_memory_gib`, the most that this process has had of the GPU's memory at once; nothing without a GPU."""
    if best_device().type != "cuda":
        return {}
    return {"gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30}


def has_bf16() -> bool:
    """Whether this machine multiplies bf16 in hardware, and on a CPU ONEDNN_MAX_CPU_ISA does not keep torch from it."""
    if best_device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in NO_BF16:
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
