"""Settings chosen for the hardware that torch reports; their effect on a GPU is measured on a real one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline.errors import GpuError
from pipeline.models import hardware
from pipeline.models.hardware import gpu_errors

pytestmark = pytest.mark.torch

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return `machine(gpus=4, bf16=True)`, which makes torch report that hardware."""

    def become(*, gpus: int = 0, bf16: bool = False, amx: bool = False, flash: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
        monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: flash)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16 and not amx)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return become


def test_gpu_is_used_where_there_is_one(machine: Machine) -> None:
    machine()
    assert (hardware.best_device().type, hardware.gpu_memory()) == ("cpu", {})
    machine(gpus=1)
    assert (hardware.best_device().type, hardware.gpu_memory()) == ("cuda", {"gpu_memory_gib": 3.0})


@pytest.mark.parametrize(
    ("gpus", "bf16", "amx", "has"),
    [
        (0, False, False, False),
        (0, True, False, True),
        (0, False, True, True),
        (1, True, False, True),
        (1, False, True, False),
    ],
)
def test_bf16_is_that_of_the_device_that_computes(
    machine: Machine, gpus: int, bf16: bool, amx: bool, has: bool
) -> None:
    machine(gpus=gpus, bf16=bf16, amx=amx)
    assert hardware.has_bf16() is has


@pytest.mark.parametrize(
    ("gpus", "bf16", "name"), [(0, True, "eager"), (0, False, "sdpa"), (1, True, "sdpa"), (1, False, "sdpa")]
)
def test_eager_attention_only_in_bf16_on_cpu(machine: Machine, gpus: int, bf16: bool, name: str) -> None:
    machine(gpus=gpus, bf16=bf16)
    assert hardware.training_attention() == name
    assert name == "eager" or name in ALL_ATTENTION_FUNCTIONS


@pytest.mark.parametrize("mixed", [False, True])
def test_rows_are_packed_on_gpu_with_the_kernel(machine: Machine, mixed: bool) -> None:
    for bf16, flash in ((True, True), (True, False), (False, True)):
        machine(gpus=1, bf16=bf16, flash=flash)
        assert hardware.packs_rows(mixed=mixed) is (bf16 and flash)
    # On a CPU, packing pays off if batches mix short and long rows.
    machine(bf16=True)
    assert hardware.packs_rows(mixed=mixed) is mixed


def test_only_a_long_training_on_a_gpu_is_compiled(machine: Machine) -> None:
    machine()
    assert not hardware.compiles(10**6)
    machine(gpus=1)
    assert [hardware.compiles(steps) for steps in (5999, 6000)] == [False, True]


@pytest.mark.parametrize(
    ("gpus", "rows", "processes"),
    [(0, 4096, 1), (1, 4096, 1), (4, 0, 1), (4, 63, 1), (4, 64, 2), (4, 127, 3), (4, 128, 4), (4, 4096, 4)],
)
def test_each_gpu_gets_at_least_32_rows(machine: Machine, gpus: int, rows: int, processes: int) -> None:
    machine(gpus=gpus)
    assert hardware.training_processes(rows) == processes


@pytest.mark.parametrize(
    ("rows", "threads", "sharing"), [(0, 2, 1), (31, 2, 1), (32, 1, 1), (32, 2, 2), (47, 8, 2), (48, 8, 3), (128, 4, 4)]
)
def test_each_thread_gets_at_least_16_rows(machine: Machine, rows: int, threads: int, sharing: int) -> None:
    machine()
    assert hardware.batch_threads(rows, threads) == sharing
    machine(gpus=1)
    assert hardware.batch_threads(rows, threads) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "too little free memory"),
        (torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "exclusively"),
    ],
)
def test_occupied_gpu_is_named_and_tried_again(error: RuntimeError, told: str) -> None:
    with pytest.raises(GpuError, match=told) as found, gpu_errors():
        raise error
    assert found.value.retryable
    assert "nvidia-smi" in str(found.value)


def test_free_memory_of_the_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**29, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2**30)
    with pytest.raises(GpuError, match=r"0\.5 of 80\.0 GiB are free, this process has 1\.0 GiB"), gpu_errors():
        raise torch.OutOfMemoryError


def test_other_errors_of_a_gpu_are_not_renamed() -> None:
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"), gpu_errors():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
