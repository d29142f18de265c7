"""Models for tests: tiny, randomly initialised BERT models, exported and quantized like real ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from transformers import BertConfig, BertModel

from tests.support.tiny_releases import Head, TinyModel, classifies, make_tokenizer


class TinyEncoder(torch.nn.Module):
    """A BERT encoder with one of the task heads."""

    def __init__(self, encoder: BertModel, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.out = torch.nn.Linear(encoder.config.hidden_size, 2 if classifies(head) else 1)

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        hidden = self.encoder(
            input_ids=input_ids.long(), attention_mask=attention_mask.long(), token_type_ids=token_type_ids.long()
        ).last_hidden_state
        if self.head != "bi-encoder":
            return self.out(hidden[:, 0])
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)


def build_model(directory: Path, head: Head, seed: int) -> TinyModel:
    """Create, export and quantize a model with weights determined by `seed`."""
    directory.mkdir(parents=True)
    wordpiece = make_tokenizer()
    wordpiece.save(str(directory / "tokenizer.json"))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=wordpiece.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        # Large weights, so that different texts get different answers.
        initializer_range=0.3,
        attn_implementation="eager",
    )
    model = TinyEncoder(BertModel(config, add_pooling_layer=False), head).eval()
    with torch.no_grad():
        # Probabilities differ between texts; scores are around the middle of 0..5, so none is clipped.
        model.out.weight.mul_(8.0 if classifies(head) else 1.0)
        model.out.bias.fill_(0.0 if classifies(head) else 2.5)
    _export(model, directory, "vectors" if head == "bi-encoder" else "logits")
    return TinyModel(directory, head)


def _export(model: TinyEncoder, directory: Path, output: str) -> None:
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.randint(5, 50, (2, 7), dtype=torch.int32)
    plain = directory / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(plain),
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names} | {output: {0: "batch"}},
            opset_version=18,
            dynamo=False,
        )
        # Seven bits, as in an export: with eight, sums saturate on CPUs without VNNI.
        options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
        quantize_dynamic(plain, directory / "model.int8.onnx", **options)
        onnx.save(convert_float_to_float16(onnx.load(plain), keep_io_types=True), directory / "model.fp16.onnx")
    plain.unlink()
