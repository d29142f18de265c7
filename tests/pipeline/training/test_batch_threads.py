"""Threads that share a batch compute the gradients of a single thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.heads import correlation_loss
from pipeline.models.tokenizer import load_tokenizer
from pipeline.stages.train import train
from pipeline.store.artifacts import Artifact
from pipeline.tasks.registry import task_of
from pipeline.training.batch_threads import Batch, BatchThreads, pieces_of
from pipeline.training.fine_tune import _sharing
from tests.support.small_pipeline import SHAPE, Road, open_road, small_recipe, weights

pytestmark = [pytest.mark.torch, pytest.mark.cpu]


@pytest.fixture
def lesson() -> tuple[nn.Module, Batch]:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), {
        "inputs": torch.randn(7, 4),
        "labels": torch.randn(7),
    }


def test_pieces_are_every_so_many_th_row() -> None:
    batch = {"ids": torch.arange(10).view(5, 2), "labels": torch.arange(5)}
    assert [piece["labels"].tolist() for piece in pieces_of(batch, 2)] == [[0, 2, 4], [1, 3]]
    assert [piece["ids"].tolist() for piece in pieces_of(batch, 2)] == [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7]]]
    assert len(pieces_of(batch, 8)) == 5


@pytest.mark.parametrize("compare", [None, correlation_loss])
@pytest.mark.parametrize("count", [2, 3, 20])
def test_gradients_are_those_of_the_whole_batch(
    count: int, compare: Callable[[Tensor, Tensor], Tensor] | None, lesson: tuple[nn.Module, Batch]
) -> None:
    model, batch = lesson
    idle = nn.Parameter(torch.zeros(3))
    parameters = [*model.parameters(), idle]

    def logits(piece: Batch) -> Tensor:
        found: Tensor = model(piece["inputs"]).squeeze(1)
        return found

    def loss_of(piece: Batch) -> Tensor:
        return (compare or functional.mse_loss)(logits(piece), piece["labels"])

    whole = loss_of(batch)
    wanted = torch.autograd.grad(whole, list(model.parameters()))
    threads = BatchThreads(count)
    for _ in range(2):
        # Twice, to check that no gradient is left from the previous step.
        loss = threads.learn(parameters, batch, logits if compare else loss_of, compare)
        assert not loss.requires_grad
        torch.testing.assert_close(loss, whole.detach())
        for parameter, gradient in zip(parameters, wanted, strict=False):
            torch.testing.assert_close(parameter.grad, gradient)
    assert idle.grad is None


def test_an_error_in_a_thread_is_raised(lesson: tuple[nn.Module, Batch]) -> None:
    model, batch = lesson

    def forward(piece: Batch) -> Tensor:
        if len(piece["labels"]) == 3:
            raise ZeroDivisionError
        return functional.mse_loss(model(piece["inputs"])[:, 0], piece["labels"])

    with pytest.raises(ZeroDivisionError):
        BatchThreads(2).learn(list(model.parameters()), batch, forward)


def by_threads(road: Road, threads: int) -> Artifact:
    settings = road.job.settings.model_copy(update={"threads": threads})
    return train(replace(road.job, force=True, settings=settings), road.tokenized)


@pytest.mark.parametrize("name", ["nsmc", pytest.param("klue-sts", marks=pytest.mark.slow)])
def test_training_by_two_threads_equals_one_thread(name: str, tmp_path: Path) -> None:
    road = open_road(small_recipe(name, model__scratch=SHAPE | {"dropout": 0.0}), tmp_path, train=300, test=40)
    alone, together, again = (by_threads(road, threads) for threads in (1, 2, 2))
    figures: list[Any] = [artifact.manifest.figures["validation"] for artifact in (alone, together, again)]
    assert figures[1] == pytest.approx(figures[0], abs=0.02)
    assert figures[2] == figures[1]
    for key, tensor in weights(alone).items():
        # Sums differ in order, and in precision if the machine has bf16.
        torch.testing.assert_close(weights(together)[key], tensor, atol=0.02, rtol=0.1)
        # Equal to the bit, in any order of threads.
        assert torch.equal(weights(again)[key], weights(together)[key])
    assert any(not torch.equal(weights(together)[key], tensor) for key, tensor in weights(alone).items())


def test_threads_share_only_where_nothing_is_drawn(reviews: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.fine_tune.batch_threads", lambda rows, threads: threads)
    recipe, tokenizer = reviews.recipe, load_tokenizer(reviews.tokenized.path / "tokenizer")
    assert recipe.model.scratch is not None
    for dropout, tune, sharing in ((0.0, "full", 2), (0.1, "full", 1), (0.0, "head", 1)):
        shape = recipe.model.scratch.model_copy(update={"dropout": dropout})
        chosen = recipe.model_copy(
            update={
                "model": recipe.model.model_copy(update={"scratch": shape}),
                "train": recipe.train.model_copy(update={"tune": tune}),
            }
        )
        assert _sharing(chosen, task_of(chosen).build(None, tokenizer).module, 2) == sharing
