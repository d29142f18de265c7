"""Packed rows give the same outputs and gradients as padded ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    set_seed,
)

from pipeline.models.hardware import best_device, has_bf16, packs_rows
from pipeline.models.network import Network, bi_encoder_network, classifier_network
from pipeline.stages.train import train
from pipeline.training import fine_tune as fit
from pipeline.training import packing as packed_module
from pipeline.training.cls_only import compute_first_row
from pipeline.training.packing import attend_by_rows, attend_on_cuda, can_pack, compile_layers, pack_rows
from tests.support.small_pipeline import SHAPE as SCRATCH
from tests.support.small_pipeline import Road, open_road, small_recipe, weights

pytestmark = [pytest.mark.torch, pytest.mark.cpu]

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
LENGTHS = torch.tensor([3, 11, 7, 4, 11])
LABELS = torch.tensor([0, 1, 2, 0, 1])


def config_of(kind: str, **other: Any) -> Any:
    return AutoConfig.for_model(kind, **SHAPE | ({"embedding_size": 16} if kind == "electra" else {}) | other)


def rows_of(lengths: Tensor, seed: int) -> dict[str, Tensor]:
    """Return padded inputs of `lengths` tokens."""
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.randint(5, 50, mask.shape, generator=torch.Generator().manual_seed(seed)) * mask
    return {"input_ids": ids, "attention_mask": mask}


def pairs_in_one() -> dict[str, Tensor]:
    rows = rows_of(LENGTHS, 1)
    segments = (torch.arange(11) > 1).long() * rows["attention_mask"]
    return rows | {"token_type_ids": segments, "labels": LABELS}


def pairs_of_rows() -> dict[str, Tensor]:
    right = {f"{name}_pair": value for name, value in rows_of(LENGTHS.flip(0) + 1, 2).items()}
    return rows_of(LENGTHS, 1) | right | {"labels": LABELS.float()}


def classifier(kind: str) -> Network:
    return classifier_network(AutoModelForSequenceClassification.from_config(config_of(kind, num_labels=3)), "cls")


def first_row_classifier(kind: str) -> Network:
    network = classifier(kind)
    compute_first_row(network.transformer)
    return network


def bi_encoder(kind: str) -> Network:
    options = {"add_pooling_layer": False} if kind == "bert" else {}
    return bi_encoder_network(AutoModel.from_config(config_of(kind), **options), "mean")


def learn(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits, and all gradients as one vector."""
    model.zero_grad()
    found = model(**inputs)
    found["loss"].backward()
    gradients = [item.grad.flatten() for item in model.parameters() if item.grad is not None]
    return found["logits"], torch.cat(gradients)


@pytest.mark.parametrize("kind", ["bert", "electra"])
@pytest.mark.parametrize(
    ("make", "inputs"),
    [(classifier, pairs_in_one()), (first_row_classifier, pairs_in_one()), (bi_encoder, pairs_of_rows())],
)
def test_answers_and_gradients_are_those_of_padded_rows(
    make: Callable[[str], Network], kind: str, inputs: dict[str, Tensor]
) -> None:
    set_seed(1)
    network = make(kind)
    model = network.module
    network.transformer.set_attn_implementation("sdpa")
    padded, gradients = learn(model, inputs)
    names = list(model.state_dict())
    pack_rows(network.transformer)
    packed, others = learn(model, inputs)
    torch.testing.assert_close(packed, padded)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-4)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("lengths", [[1, 1, 1], [5], [4, 4], [1, 9, 1]])
def test_any_lengths_can_be_packed(lengths: list[int]) -> None:
    set_seed(1)
    model = AutoModel.from_config(config_of("bert"))
    inputs = rows_of(torch.tensor(lengths), 3)
    real = inputs["attention_mask"].bool()
    padded = model(**inputs).last_hidden_state
    pack_rows(model)
    packed = model(**inputs).last_hidden_state
    torch.testing.assert_close(packed[real], padded[real])
    assert not packed[~real].any()
    if real.all():
        torch.testing.assert_close(model(inputs["input_ids"]).last_hidden_state, padded)


def test_no_layer_sees_padding() -> None:
    model: Any = classifier("bert").module
    pack_rows(model)
    seen = []
    model.bert.encoder.layer[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model(**pairs_in_one())
    assert seen == [(1, int(LENGTHS.sum()), 32)]


def test_dropout_is_drawn_in_training_only() -> None:
    model = AutoModelForSequenceClassification.from_config(
        config_of("bert", num_labels=3, attention_probs_dropout_prob=0.5)
    )
    compute_first_row(model)
    pack_rows(model)
    inputs = pairs_in_one()
    model.eval()
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


def starts_of(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0).to(torch.int32)


@pytest.mark.parametrize("queries", [[3, 5, 2], [1, 1, 1]])
def test_cuda_kernel_has_the_same_shapes(queries: list[int]) -> None:
    # The meta device checks torch's own shape rules for this kernel without a GPU.
    keys = [3, 5, 2]
    starts = starts_of(queries), starts_of(keys)
    shapes = [(sum(queries), 4, 8), (10, 4, 8), (10, 4, 8)]
    real = [torch.randn(shape, requires_grad=True) for shape in shapes]
    meta = [torch.empty(shape, device="meta", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    ends = starts[0].to("meta"), starts[1].to("meta")
    expected = attend_by_rows(*real, starts, (max(queries), max(keys)), 0.1, 0.5)
    found = attend_on_cuda(*meta, ends, (max(queries), max(keys)), 0.1, 0.5)
    assert found.shape == expected.shape
    found.sum().backward()
    assert [item.grad.shape for item in meta if item.grad is not None] == [item.shape for item in real]


def test_attention_stays_within_a_row() -> None:
    starts = starts_of([2, 3])
    query, key, value = (torch.randn(5, 2, 4) for _ in range(3))
    whole = attend_by_rows(query, key, value, (starts, starts), (3, 3), 0.0, None)
    for low, high in ((0, 2), (2, 5)):
        alone = starts_of([high - low])
        part = attend_by_rows(query[low:high], key[low:high], value[low:high], (alone, alone), (3, 3), 0.0, None)
        torch.testing.assert_close(whole[low:high], part)


# torch inspects each input of a compiled function, even without gradients.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_layers_are_one_graph_for_all_lengths() -> None:
    set_seed(1)
    model: Any = first_row_classifier("bert").module
    pack_rows(model)
    batches = [rows_of(torch.tensor(counts), 3) for counts in ([3, 9, 4], [5, 6], [16, 2, 3, 3], [7, 7])]
    batches = [rows | {"labels": torch.arange(len(rows["input_ids"])) % 3} for rows in batches]
    expected = [learn(model, batch) for batch in batches]
    names = list(model.state_dict())
    # Imported here, because the import takes a second.
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    compile_layers(model, counter)
    counts = []
    for batch, before in zip(batches, expected, strict=True):
        torch.testing.assert_close(learn(model, batch), before)
        counts.append(counter.frame_count)
    assert counts[0] > 0
    assert counts == counts[:1] * len(batches)
    assert list(model.state_dict()) == names


@pytest.mark.slow
def test_the_kernel_for_cuda_can_be_compiled() -> None:
    compiled = torch.compile(attend_on_cuda, backend="aot_eager", fullgraph=True, dynamic=True)
    for counts in ([3, 5, 2], [4, 4]):
        shape = (sum(counts), 4, 8)
        inputs = [torch.empty(shape, device="meta", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        starts = starts_of(counts).to("meta")
        found = compiled(*inputs, (starts, starts), (max(counts), max(counts)), 0.1, 0.5)
        found.sum().backward()
        assert found.shape == shape
        assert all(item.grad is not None and item.grad.shape == shape for item in inputs)


def test_only_encoders_of_a_known_shape_are_packed() -> None:
    def of(kind: str, **shape: Any) -> PreTrainedModel:
        return AutoModel.from_config(config_of(kind, **shape))

    assert can_pack(of("bert"))
    assert can_pack(of("electra"))
    assert not can_pack(of("bert", num_attention_heads=8)), "heads of 4 numbers"
    assert not can_pack(RobertaForSequenceClassification(RobertaConfig(**SHAPE)))


def seen_by(precisions: set[torch.dtype]) -> Callable[..., Tensor]:
    def attend(*tokens: Any) -> Tensor:
        precisions.update(item.dtype for item in tokens[:3])
        return attend_by_rows(*tokens)

    return attend


def test_a_stage_that_packs_trains_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precisions: set[torch.dtype] = set()
    for name in ("nsmc", "klue-sts"):
        recipe = small_recipe(name, train__epochs=1, model__scratch=SCRATCH | {"dropout": 0.0})
        road = open_road(recipe, tmp_path / name, train=300, test=40)
        with monkeypatch.context() as patch:
            patch.setattr(fit, "packs_rows", lambda mixed: False)
            padded = road.trained
            patch.setattr(fit, "packs_rows", lambda mixed: True)
            patch.setattr(packed_module, "attend_by_rows", seen_by(precisions))
            packed = train(replace(road.job, force=True), road.tokenized)
        # In training, evaluation and calibration: the CUDA kernel accepts nothing else.
        assert precisions == {torch.bfloat16 if has_bf16() else torch.float32}
        assert packed.manifest.figures["padding"] == 0.0 < padded.manifest.figures["padding"]
        found, expected = (weights(item) for item in (packed, padded))
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            # Sums differ in order, and in precision if the machine has bf16.
            torch.testing.assert_close(found[key], tensor, atol=0.02, rtol=0.1)


def test_on_a_cpu_only_mixed_lengths_are_packed(reviews: Road, pairs: Road) -> None:
    assert best_device().type == "cuda" or not packs_rows(mixed=False)
    assert packs_rows(mixed=True)
    # Its batches mix pairs of all lengths, and no padding is computed.
    assert pairs.trained.manifest.figures["padding"] == 0.0
