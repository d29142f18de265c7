"""What training says of its speed."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline import hardware
from pipeline.trainer import Meter


def test_what_goes_in_is_counted_without_its_padding() -> None:
    meter = Meter(started=0.0)
    assert meter.padding == 0.0
    meter.count({"labels": torch.ones(2), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])})
    meter.count({"attention_mask": torch.tensor([[1, 1]]), "attention_mask_pair": torch.tensor([[1, 1, 0, 0]])})
    assert (meter.rows, meter.tokens, meter.places) == (3, 8, 12)
    assert meter.padding == pytest.approx(4 / 12)
    figures = meter.figures()
    assert figures["padding"] == meter.padding
    assert figures["tokens_per_second"] == pytest.approx(8 / 3 * figures["samples_per_second"])


@pytest.mark.parametrize(
    ("device", "bf16", "name"), [("cpu", True, "eager"), ("cpu", False, "sdpa"), ("cuda", True, "sdpa")]
)
def test_attention_is_by_products_where_that_is_faster(
    device: str, bf16: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "best_device", lambda: torch.device(device))
    monkeypatch.setattr(hardware, "has_bf16", lambda: bf16)
    assert hardware.training_attention() == name
    assert name == "eager" or name in ALL_ATTENTION_FUNCTIONS
