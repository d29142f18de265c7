"""Speed figures and row weights of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from pipeline.models.network import classifier_network
from pipeline.models.tokenizer import load_tokenizer
from pipeline.tasks.registry import task_of
from pipeline.training import fine_tune as fit
from pipeline.training.trainer import Meter, decay_by_layer
from tests.support.small_pipeline import Road

pytestmark = pytest.mark.torch


def test_what_goes_in_is_counted_without_its_padding() -> None:
    meter = Meter(started=0.0)
    assert meter.padding == 0.0
    meter.count({"labels": torch.ones(2), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])})
    pair = {"attention_mask": torch.tensor([[1, 1]]), "attention_mask_pair": torch.tensor([[1, 1, 0, 0]])}
    meter.count(pair | {"labels": torch.ones(1)})
    assert (meter.rows, meter.tokens, meter.places) == (3, 8, 12)
    assert meter.padding == pytest.approx(4 / 12)
    figures = meter.figures()
    assert figures["padding"] == meter.padding
    assert figures["tokens_per_second"] == pytest.approx(8 / 3 * figures["samples_per_second"])


def test_what_is_packed_has_no_padding() -> None:
    meter = Meter(packed=True)
    meter.count({"labels": torch.ones(2), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])})
    meter.count({"labels": torch.ones(2), "attention_mask": torch.tensor([[1, 1], [1, 0]])})
    assert (meter.tokens, meter.places, meter.padding) == (7, 7, 0.0)


def test_the_optimizer_is_one_kernel(reviews: Road, tmp_path: Path) -> None:
    recipe, model = reviews.recipe, BertForSequenceClassification(BertConfig(num_hidden_layers=1))
    lesson = fit._lesson(recipe, classifier_network(model, "cls"), reviews.tokenized, 0)
    trainer = fit._trainer(task_of(recipe), lesson, tmp_path, [], packed=False)
    assert trainer.create_optimizer().defaults["fused"]


@pytest.mark.parametrize("sharing", [1, 2])
def test_every_row_counts_as_much_as_any_other(sharing: int, reviews: Road, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(load_tokenizer(reviews.tokenized.path / "tokenizer")), hidden_size=16, intermediate_size=32,
        num_hidden_layers=1, num_attention_heads=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    lesson = fit._lesson(reviews.recipe, classifier_network(model, "cls"), reviews.tokenized, 0)
    trainer = fit._trainer(task_of(reviews.recipe), lesson, tmp_path, [], packed=False, sharing=sharing)
    trainer.current_gradient_accumulation_steps = 1  # as `train` sets it
    batches = [trainer.collate([lesson.train[row] for row in rows]) for rows in lesson.batches]
    assert len({len(batch["labels"]) for batch in batches}) > 1
    for batch in batches:
        model.zero_grad()
        loss = trainer.training_step(model, batch)
        found = model.classifier.bias.grad
        assert found is not None
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        # With the mean number of rows, it would be the mean.
        wanted = cross_entropy(logits, batch["labels"], reduction="sum") / (len(lesson.train) / len(batches))
        torch.testing.assert_close(loss, wanted.detach(), rtol=0.02, atol=0.0)
        (gradient,) = torch.autograd.grad(wanted, [model.classifier.bias])
        torch.testing.assert_close(found, gradient, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_lower_layers_learn_slower(kind: str) -> None:
    config = AutoConfig.for_model(
        kind, vocab_size=30, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24
    )
    model = AutoModelForSequenceClassification.from_config(config)
    named = dict(model.named_parameters())
    weights = [parameter for parameter in named.values() if parameter.ndim > 1]
    others = [parameter for parameter in named.values() if parameter.ndim == 1]
    groups = [{"params": weights, "lr": 1.0, "weight_decay": 0.1}, {"params": others, "lr": 1.0, "weight_decay": 0.0}]
    split = decay_by_layer(model, groups, 0.5)
    rates = {name: group["lr"] for group in split for name, p in named.items() if any(p is q for q in group["params"])}
    assert rates.keys() == named.keys()
    assert sum(len(group["params"]) for group in split) == len(named)
    for name, rate in rates.items():
        depth = next((3 - n for n in range(3) if f".layer.{n}." in name), 4 if "embeddings" in name else 0)
        assert rate == 0.5**depth, name
    assert {group["weight_decay"] for group in split if any(p.ndim == 1 for p in group["params"])} == {0.0}
