"""The shipped encoder: small, as its card says, and with some knowledge of Korean before fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel

from pipeline.data.reading import read_split
from pipeline.models.base_model import shipped
from pipeline.models.forward import run_rows
from pipeline.models.heads import mean_state
from pipeline.models.row_encoder import Encoder
from pipeline.models.tokenizer import load_tokenizer
from pipeline.pretraining.spec import ENCODERS, load_encoder
from pipeline.recipes.kinds.inputs import SingleText
from pipeline.recipes.loading import load_recipe

pytestmark = [pytest.mark.torch, pytest.mark.cpu]

#: A sentence, a paraphrase, and an unrelated sentence.
TRIPLETS = [
    ("정말 재미있는 영화였다", "진짜 재밌는 영화였어요", "배우들 연기가 어색하고 지루했다"),
    ("시간 가는 줄 모르고 봤어요", "시간이 어떻게 갔는지 모르겠네요", "음악이 너무 시끄러워서 별로"),
    ("감동적이어서 눈물이 났다", "보면서 눈물 흘렸습니다 감동", "액션 장면이 시원시원하다"),
    ("돈이 아까운 영화", "영화비가 아깝다", "어릴 때 봤던 추억의 만화"),
    ("한 남자가 기타를 치고 있다", "남자가 기타를 연주한다", "개가 해변을 달리고 있다"),
    ("여자가 양파를 썰고 있다", "한 여성이 양파를 자른다", "두 소년이 축구를 하고 있다"),
    ("배우의 연기가 훌륭하다", "배우들 연기력이 대단해요", "결말이 이해가 안 된다"),
    ("스토리가 뻔하고 지루하다", "내용이 뻔해서 지루했음", "영상미가 정말 아름답다"),
]


@pytest.fixture(scope="module")
def mini() -> Path:
    directory = shipped("mini")
    assert directory is not None
    return directory


def vectors(directory: Path, texts: list[str]) -> np.ndarray:
    """Return unit vectors (texts, hidden): means of the states of the encoder without fine-tuning."""
    tokenizer, encoder = load_tokenizer(directory), AutoModel.from_pretrained(directory, dtype=torch.float32).eval()

    def call(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        states = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return torch.nn.functional.normalize(mean_state(states, attention_mask), dim=-1)

    rows = Encoder(tokenizer, 128, SingleText.encodings).encode(pd.DataFrame({"text": texts})).rows
    return run_rows("test", rows, tokenizer.pad_token_id, torch.device("cpu"), call)


def test_it_is_small(mini: Path) -> None:
    assert (mini / "model.safetensors").stat().st_size <= 16_000_000
    with safe_open(mini / "model.safetensors", "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118  not a dictionary
    assert kinds == {"F16"}
    assert sum(path.stat().st_size for path in mini.iterdir()) <= 17_000_000


def test_its_card_says_how_it_was_made(mini: Path) -> None:
    card = (mini / "README.md").read_text(encoding="utf-8")
    said = json.loads((mini / "pretraining.json").read_text(encoding="utf-8"))
    for stage, name in ((said, "mini-sentences"), (said["start"], "mini")):
        assert stage["spec"] == json.loads(load_encoder(name).model_dump_json())
        assert stage["steps"] == stage["spec"]["steps"]
        for number in ("steps", "lines"):
            assert f"{stage[number]:,}" in card
        assert all(file in card for file in stage["files"])
        assert (ENCODERS / f"{name}.toml").is_file()
    assert f"{said['parameters'] / 1e6:.1f} million parameters" in card
    assert "CC0" in card
    assert "license: cc-by-sa-4.0" in card
    # No trace of the machine that built it.
    assert not any("/tmp" in text or "/home" in text for text in (card, json.dumps(said)))
    for picture in mini.glob("*.png"):
        assert f"({picture.name})" in card


def test_paraphrase_is_nearer_than_unrelated_text(mini: Path) -> None:
    one, same, other = (vectors(mini, list(texts)) for texts in zip(*TRIPLETS, strict=True))
    nearer = (one * same).sum(1) > (one * other).sum(1)
    assert nearer.mean() >= 0.85, nearer


@pytest.mark.slow
def test_untuned_it_knows_more_of_similarity_than_chance(mini: Path, real_data: Path) -> None:
    rows = read_split(load_recipe("klue-sts", "embedded"), real_data, "test")
    one, other = (vectors(mini, rows[name].tolist()) for name in ("text", "text_pair"))
    # On 519 pairs; a trial with a fifth of the steps reached 0.17.
    assert np.corrcoef((one * other).sum(1), rows["label"])[0, 1] > 0.3
