"""What each of several processes computes of a batch, such that together they learn what one would."""

from __future__ import annotations

import torch
from torch import Tensor


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
