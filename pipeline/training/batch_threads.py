"""Data parallelism by threads in one process: each thread computes the gradients of a part of the batch."""

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
    """Split `batch` into at most `count` non-empty pieces; piece n has rows n, n + `count` and so on.

    Interleaving the rows gives the pieces about equal lengths.
    """
    pieces = ({name: value[start::count] for name, value in batch.items()} for start in range(count))
    return [piece for piece in pieces if len(piece["labels"])]


class BatchThreads:
    """Threads that run forward and backward concurrently and synchronize once or twice per step.

    Threads within a matrix product synchronize hundreds of times per step. If threads do not spin (decision 7), waking
    them takes longer than a small product. Gradients are added in the order of the pieces, so the result does not
    depend on which thread finishes first. With random draws, such as dropout, the result would depend on it.
    """

    def __init__(self, count: int) -> None:
        """Create `count` threads; each of them uses the number of threads that torch is set to."""
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

        `forward` returns the mean loss of a piece. If `compare` is given, `forward` returns logits (rows,), and
        `compare` returns the loss of all logits (rows,) and labels (rows,).
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
            # Detach before the loss so that each thread backpropagates through its own graph.
            ends = [piece.detach().requires_grad_() for piece in logits]
            loss = compare(torch.cat(ends), torch.cat([piece["labels"] for piece in pieces]))
            found = tuple(self._pool.map(back, logits, torch.autograd.grad(loss, ends)))

        def add(number: int) -> None:
            for parameter, *gradients in islice(zip(parameters, *found, strict=True), number, None, self.count):
                parameter.grad = _sum(gradients)

        list(self._pool.map(add, range(self.count)))
        return loss.detach()


def _sum(gradients: Gradients) -> Tensor | None:
    """Return the sum of the gradients, added in place to the first; None if there is no gradient."""
    known = [gradient for gradient in gradients if gradient is not None]
    for gradient in known[1:]:
        known[0] += gradient
    return known[0] if known else None
