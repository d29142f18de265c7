"""What each of several processes computes of a batch, such that together they learn what one would."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from pipeline.training.samplers import Batches


class Share(Sampler[list[int]]):
    """One process's rows of each batch: every so many-th; of a batch with fewer rows than processes, its first row."""

    def __init__(self, batches: Batches, rank: int, processes: int) -> None:
        """`rank` counts from 0 to `processes` - 1."""
        self._batches = batches
        self._rank, self._processes = rank, processes

    def set_epoch(self, epoch: int) -> None:
        """What is iterated next is epoch number `epoch`."""
        self._batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self._rank :: self._processes] or batch[:1] for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def agree(flag: bool) -> bool:
    """Whether `flag` is true in any process; each waits until all have asked. Alone it is what it is.

    What is asked lies on the CPU: nobody waits for a GPU.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flag
    found = torch.tensor(int(flag))
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found)


def all_rows(values: Tensor) -> Tensor:
    """The `values` (rows,) of all processes (all rows,), of which only this one's have a gradient."""
    processes, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    counts = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(processes)]
    torch.distributed.all_gather(counts, torch.tensor([len(values)], device=values.device))
    lengths = [int(count) for count in counts]
    padded = values.new_zeros(max(lengths))
    padded[: len(values)] = values.detach()
    found = [torch.empty_like(padded) for _ in range(processes)]
    torch.distributed.all_gather(found, padded)
    return torch.cat([values if n == rank else found[n][: lengths[n]] for n in range(processes)])
