"""Several processes that share a batch compute the gradients of one; here two, over gloo."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.training.collectives import agree, all_rows
from pipeline.training.samplers import EvenBatches, Share

pytestmark = pytest.mark.torch

LENGTHS = np.random.default_rng(1).integers(3, 40, 101)


def test_every_row_of_a_batch_is_one_process_s() -> None:
    batches = EvenBatches(LENGTHS, rows=8, seed=3)
    shares = [Share(EvenBatches(LENGTHS, rows=8, seed=3), rank, 3) for rank in range(3)]
    for epoch in (0, 1):
        for sampler in (batches, *shares):
            sampler.set_epoch(epoch)
        parts = list(zip(*shares, strict=True))
        assert [sorted(row for share in part for row in share) for part in parts] == [
            sorted(batch) for batch in batches
        ]
        assert {max(map(len, part)) - min(map(len, part)) for part in parts} <= {0, 1}
    assert [len(share) for share in shares] == [len(batches)] * 3


def test_every_process_gets_a_row_of_few() -> None:
    shares = [Share(EvenBatches(np.ones(3), rows=1, seed=3), rank, 2) for rank in range(2)]
    assert [len(batch) for share in shares for batch in share] == [1] * 6


def test_alone_one_agrees_with_itself() -> None:
    assert agree(True)
    assert not agree(False)


def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return a loss over pairs of rows."""
    return ((outputs[:, None] - outputs) * (labels[:, None] - labels)).exp().mean()


def batch() -> tuple[nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, 4, generator=generator))
    return model, torch.randn(5, 4, generator=generator), torch.randn(5, generator=generator)


def gradient_of(model: nn.Linear, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    assert model.weight.grad is not None
    return model.weight.grad.clone()


def answer(rank: int, meeting: str, sender: Connection) -> None:
    """Compute the results of one of two processes for its rows: three of five, or two."""
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    model, rows, labels = batch()
    rows, labels = rows[rank::2], labels[rank::2]
    found: dict[str, Any] = {"agreed": [agree(rank == 1), agree(False)]}
    outputs = model(rows).squeeze(-1)
    found["compared"] = gradient_of(model, loss_of(all_rows(outputs), all_rows(labels)) * 2)
    found = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in found.items()}
    sender.send(found)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the results of both processes."""
    meeting = f"file://{tmp_path_factory.mktemp('meeting') / 'point'}"
    context = torch.multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [context.Process(target=answer, args=(rank, meeting, pipes[rank][1])) for rank in range(2)]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    found = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    return found


@pytest.mark.slow
def test_what_one_wants_all_do(both: list[dict[str, Any]]) -> None:
    assert [found["agreed"] for found in both] == [[True, False]] * 2


@pytest.mark.slow
def test_mean_gradient_equals_that_of_the_batch(both: list[dict[str, Any]]) -> None:
    model, rows, labels = batch()
    compared = [found["compared"] for found in both]
    wanted = gradient_of(model, loss_of(model(rows).squeeze(-1), labels))
    torch.testing.assert_close(torch.tensor(compared).mean(0), wanted)
    assert compared[0] != compared[1]
