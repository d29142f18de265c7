"""A step's gradients by several threads of one process, each of a part of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Any]
Gradients = Sequence[Tensor | None]


def pieces_of(batch: Batch, count: int) -> list[Batch]:
    """`batch` in at most `count` pieces, of every so many-th row each, so that all are about as long; none is empty."""
    pieces = ({name: value[start::count] for name, value in batch.items()} for start in range(count))
    return [piece for piece in pieces if len(piece["labels"])]


class BatchThreads:
    """Threads that compute forward and backward side by side, and wait for each other once or twice a step.

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
        compare: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Set the gradients of `parameters` from `batch`, and return its loss.

        `forward` makes a mean loss of a piece; or, where `compare` makes the loss of all rows together, the logits
        (rows,) that it wants beside the labels (rows,).
        """
        pieces = pieces_of(batch, self.count)

        def back(output: Tensor, slope: Tensor) -> Gradients:
            return torch.autograd.grad(output, parameters, slope, allow_unused=True)

        def there_and_back(piece: Batch) -> tuple[Tensor, Gradients]:
            loss = forward(piece) * (len(piece["labels"]) / len(batch["labels"]))
            return loss.detach(), back(loss, torch.ones_like(loss))

        if compare is None:
            losses, found = zip(*self._pool.map(there_and_back, pieces), strict=True)
            loss = torch.stack(losses).sum()
        else:
            logits = list(self._pool.map(forward, pieces))
            # The loss is computed on its own, so that each thread has a graph for itself to go back.
            ends = [piece.detach().requires_grad_() for piece in logits]
            loss = compare(torch.cat(ends), torch.cat([piece["labels"] for piece in pieces]))
            found = tuple(self._pool.map(back, logits, torch.autograd.grad(loss, ends)))

        def add(number: int) -> None:
            for parameter, *gradients in islice(zip(parameters, *found, strict=True), number, None, self.count):
                parameter.grad = _sum(gradients)

        list(self._pool.map(add, range(self.count)))
        return loss.detach()


def _sum(gradients: Gradients) -> Tensor | None:
    """Their sum, in place of the first; None where nothing has a gradient."""
    known = [gradient for gradient in gradients if gradient is not None]
    for gradient in known[1:]:
        known[0] += gradient
    return known[0] if known else None
