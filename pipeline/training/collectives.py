"""Collective operations that make several processes train the model that a single process would train."""

from __future__ import annotations

import torch
from torch import Tensor


def agree(flag: bool) -> bool:
    """Return whether `flag` is true in any process, after all have called this; `flag` itself in a single process.

    The tensor is on the CPU so that no process waits for its GPU.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flag
    found = torch.tensor(int(flag))
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found)


def all_rows(values: Tensor) -> Tensor:
    """Return the `values` (rows,) of all processes as (all rows,); only those of this process have a gradient."""
    processes, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    counts = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(processes)]
    torch.distributed.all_gather(counts, torch.tensor([len(values)], device=values.device))
    lengths = [int(count) for count in counts]
    padded = values.new_zeros(max(lengths))
    padded[: len(values)] = values.detach()
    found = [torch.empty_like(padded) for _ in range(processes)]
    torch.distributed.all_gather(found, padded)
    return torch.cat([values if n == rank else found[n][: lengths[n]] for n in range(processes)])
