"""Hardware of this machine, according to torch: device, precision, processes and threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import GpuError

#: Fewest steps for which compiling pays off. An estimate, not measured: a minute to compile (less with the cache of an
#: earlier run) against some ten milliseconds saved per step.
WORTH = 6000
#: Fewest rows of a batch per GPU. An estimate, not measured: with fewer rows, launching kernels is assumed to dominate,
#: and that takes as long for fewer rows.
SHARE = 32
#: Fewest rows of a batch per CPU thread. The fixed cost of a step of `mini`, such as the gradients of the embeddings,
#: is some 30 ms of one thread; 16 short rows add about the same.
PER_THREAD = 16
#: Values of oneDNN's variable ONEDNN_MAX_CPU_ISA that disable bf16 instructions. torch uses oneDNN for matrix products,
#: which then emulates bf16.
NO_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
#: CUDA's message if the GPU is in exclusive mode and has a process.
BUSY = "busy or unavailable"


def best_device() -> torch.device:
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_attention() -> str:
    """Return transformers' name of the attention implementation that trains fastest on this machine.

    On a CPU with short bf16 inputs, torch's fused attention takes four times as long as matrix products.
    """
    return "eager" if best_device().type == "cpu" and has_bf16() else "sdpa"


def packs_rows(*, mixed: bool) -> bool:
    """Return whether training uses padding-free batches.

    CUDA needs torch's FlashAttention kernel and bf16 (Ampere or newer). On a CPU they are faster only if batches are
    `mixed`, with rows of all lengths.
    """
    if best_device().type == "cpu":
        return mixed
    return best_device().type == "cuda" and has_bf16() and torch.backends.cuda.is_flash_attention_available()


def compiles(steps: int) -> bool:
    """Return whether to compile layers for a training of `steps` steps: on CUDA, for at least `WORTH` steps."""
    return best_device().type == "cuda" and steps >= WORTH


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def training_processes(rows: int) -> int:
    """Return the number of training processes, one per GPU, for batches of `rows` rows; 1 without a GPU.

    Each process gets at least `SHARE` rows. CUDA_VISIBLE_DEVICES limits the GPUs. On a CPU, threads share a batch
    instead (`batch_threads`).
    """
    if best_device().type != "cuda":
        return 1
    return max(1, min(torch.cuda.device_count(), rows // SHARE))


def batch_threads(rows: int, threads: int) -> int:
    """Return how many of `threads` CPU threads share a batch of `rows`, with at least `PER_THREAD` each; 1 on a GPU."""
    return 1 if best_device().type != "cpu" else max(1, min(threads, rows // PER_THREAD))


def gpu_memory() -> dict[str, float]:
    """Return the peak GPU memory of this process as `gpu_memory_gib`; an empty dictionary without a GPU."""
    if best_device().type != "cuda":
        return {}
    return {"gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30}


@contextmanager
def gpu_errors() -> Iterator[None]:
    """Raise GpuError instead of torch's errors if the GPU's memory is full or another process uses it exclusively."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GpuError(
            f"the GPU has too little free memory ({_free_memory()}); if other processes use it (`nvidia-smi` lists "
            "them), wait for them or end them, then rerun the command; else use a smaller base model or a shorter "
            "model.max_length"
        ) from error
    except torch.AcceleratorError as error:
        if BUSY not in str(error):
            raise
        raise GpuError(
            "another process uses the GPU exclusively (`nvidia-smi` lists it); wait for it or end it, then rerun the "
            "command"
        ) from error


def _free_memory() -> str:
    if not torch.cuda.is_available():
        return "none is visible"
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
    return f"{free:.1f} of {total:.1f} GiB are free, this process has {torch.cuda.memory_reserved() / 2**30:.1f} GiB"


def has_bf16() -> bool:
    """Return whether this machine multiplies bf16 in hardware, and ONEDNN_MAX_CPU_ISA does not disable it on a CPU."""
    if best_device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in NO_BF16:
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
