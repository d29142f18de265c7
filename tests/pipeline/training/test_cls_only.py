"""Computing the last layer for [CLS] only gives the same outputs as the full layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    set_seed,
)

from pipeline.training.cls_only import compute_first_row

pytestmark = [pytest.mark.torch, pytest.mark.cpu]

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "num_labels": 3,
}


def bert(**other: Any) -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**SHAPE | other))


def electra(**other: Any) -> PreTrainedModel:
    return ElectraForSequenceClassification(ElectraConfig(embedding_size=16, **SHAPE | other))


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """Return five padded inputs of 3 to 11 tokens with two segments."""
    lengths = torch.tensor([3, 11, 7, 4, 11])
    mask = (torch.arange(11) < lengths[:, None]).long()
    ids = torch.randint(5, 50, (5, 11), generator=torch.Generator().manual_seed(1)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (torch.arange(11) > 4).long() * mask}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [bert, electra])
def test_answers_and_gradients_are_those_of_the_whole_layer(
    make: Any, attention: str, inputs: dict[str, torch.Tensor]
) -> None:
    set_seed(1)
    model = make(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model.set_attn_implementation(attention)
    labels = torch.tensor([0, 1, 2, 0, 1])
    found = []
    for masked in (inputs, {"input_ids": inputs["input_ids"][:, :3]}):
        for changed in (False, True):
            if changed:
                compute_first_row(model)
            model.zero_grad()
            outputs = model(**masked, labels=labels, output_hidden_states=False)
            outputs.loss.backward()
            gradients = torch.cat([item.grad.flatten() for item in model.parameters() if item.grad is not None])
            found.append((outputs.logits, gradients))
        del getattr(model, model.base_model_prefix).encoder.layer[-1].forward
    for (whole, one), (first, other) in zip(found[::2], found[1::2], strict=True):
        torch.testing.assert_close(first, whole)
        torch.testing.assert_close(other, one)


def test_the_other_tokens_are_not_computed(inputs: dict[str, torch.Tensor]) -> None:
    model = bert()
    compute_first_row(model)
    assert model.base_model(**inputs).last_hidden_state.shape == (5, 1, 32)


def test_dropout_is_drawn_in_training_only(inputs: dict[str, torch.Tensor]) -> None:
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    compute_first_row(model)
    model.eval()
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_parameters_keep_their_names() -> None:
    model = bert()
    names = list(model.state_dict())
    compute_first_row(model)
    assert list(model.state_dict()) == names
