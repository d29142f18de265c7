"""A step's gradients by several threads of one process, each of a part of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Any]


def pieces_of(batch: Batch, count: int) -> list[Batch]:
    """`batch` in at most `count` pieces, of every so many-th row each, so that all are about as long; none is empty."""
    pieces = ({name: value[start::count] for name, value in batch.items()} for start in range(count))
    return [piece for piece in pieces if len(piece["labels"])]


class BatchThreads:
    """Threads that compute forward and backward side by side, and wait for each other twice a step.

    Threads within one product of matrices do so hundreds of times, and where they may not spin (decision 7) waking them
    takes longer than a small product. Gradients are added in the order of the pieces: which thread was first changes
    nothing. Where something is drawn at random, as by dropout, it would.
    """

    def __init__(self, count: int) -> None:
        """Each of the `count` threads computes with as many threads of its own as torch has been set to."""
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="batch")

    def learn(
        self,
        parameters: Sequence[nn.Parameter],
        batch: Batch,
        forward: Callable[[Batch], Tensor],
        total: Callable[[list[Tensor], list[Batch]], Tensor],
    ) -> Tensor:
        """Set the gradients of `parameters` from `batch`, and return its loss.

        `forward` makes of a piece what `total` makes the loss of, knowing all of them.
        """
        pieces = pieces_of(batch, self.count)
        outputs = list(self._pool.map(forward, pieces))
        # The loss is computed on its own, so that each thread has a graph for itself to go back.
        ends = [output.detach().requires_grad_() for output in outputs]
        loss = total(ends, pieces)
        slopes = torch.autograd.grad(loss, ends)

        def back(output: Tensor, slope: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(output, parameters, slope, allow_unused=True)

        parts = list(self._pool.map(back, outputs, slopes))
        for parameter, *found in zip(parameters, *parts, strict=True):
            gradients = [gradient for gradient in found if gradient is not None]
            if gradients:
                parameter.grad = gradients[0]
                for gradient in gradients[1:]:
                    parameter.grad.add_(gradient)
        return loss.detach()
