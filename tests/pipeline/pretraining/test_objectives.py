"""Pretraining objectives: masking, learning and shared parameters."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, set_seed

from pipeline.pretraining import objectives
from pipeline.pretraining.objectives import OBJECTIVES, Contrastive, Masking, ReplacedTokens, draw
from pipeline.pretraining.spec import EncoderSpec, load_encoder

pytestmark = pytest.mark.torch

MASK, SPECIAL, VOCABULARY = 4, 5, 20
CONFIG = BertConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
MASKING = Masking(0.15, MASK, SPECIAL, VOCABULARY)


@pytest.fixture
def spec() -> EncoderSpec:
    return load_encoder("mini").model_copy(update={"generator": 16})


def lines(rows: int) -> torch.Tensor:
    """Return lines (rows, 12) of one repeated token between [CLS] and [SEP]."""
    words = torch.randint(SPECIAL, VOCABULARY, (rows, 1)).expand(rows, 10)
    return torch.cat([torch.full((rows, 1), 2), words, torch.full((rows, 1), 3)], dim=1)


def test_masking_replaces_tokens_in_the_given_shares() -> None:
    set_seed(7)
    ids = lines(20_000)
    masked, chosen = MASKING(ids)
    words = ids >= SPECIAL
    assert not chosen[~words].any()
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert chosen[words].float().mean().item() == pytest.approx(0.15, abs=0.005)
    kept, hidden = (masked == ids)[chosen], (masked == MASK)[chosen]
    assert hidden.float().mean().item() == pytest.approx(0.8, abs=0.01)
    # One of 15 random tokens is the token itself.
    assert kept.float().mean().item() == pytest.approx(0.1 + 0.1 / 15, abs=0.01)
    assert masked[chosen & (masked != MASK)].min() >= SPECIAL


def test_masking_varies_and_masks_at_least_one() -> None:
    ids = lines(2)
    assert len({tuple(MASKING(ids)[1].flatten().tolist()) for _ in range(20)}) > 10
    assert all(Masking(1e-9, MASK, SPECIAL, VOCABULARY)(ids)[1].sum() == 1 for _ in range(20))


# The generator's loss has 1/50 of the weight, so it learns more slowly.
@pytest.mark.parametrize(("name", "guessed"), [("masked-language", 0.9), ("replaced-tokens", 0.3)])
def test_it_learns(name: str, guessed: float, spec: EncoderSpec) -> None:
    set_seed(7)
    model = OBJECTIVES[name](spec, CONFIG, MASKING)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    seen = []
    for _ in range(250):
        said = model(lines(32))
        optimizer.zero_grad()
        said["loss"].backward()
        optimizer.step()
        seen.append({key: float(value.detach()) for key, value in said.items()})
    # By chance, 1 of 15.
    assert seen[0]["guessed"] < 0.2
    assert sum(item["guessed"] for item in seen[-20:]) / 20 > guessed
    assert seen[-1]["loss"] < 0.7 * seen[0]["loss"]
    if name == "replaced-tokens":
        # Always answering "original" gives a loss of 0.37 if 1/8 is replaced.
        assert sum(item["telling"] for item in seen[-20:]) / 20 < 0.25


def test_padding_changes_nothing(spec: EncoderSpec) -> None:
    set_seed(7)
    model = ReplacedTokens(spec, CONFIG, MASKING).eval()
    ids = lines(4)
    padded = torch.nn.functional.pad(ids, (0, 3))
    mask = (padded != 0).long()
    plain = model.encoder(input_ids=ids).last_hidden_state
    inside = model.encoder(input_ids=padded, attention_mask=mask).last_hidden_state[:, : ids.shape[1]]
    assert torch.allclose(plain, inside, atol=1e-5)
    said = model(padded, mask)
    assert torch.isfinite(said["loss"])


def test_generator_learns_only_from_masked_prediction(spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(weight: float) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(objectives, "DISCRIMINATOR", weight)
        set_seed(7)
        model = ReplacedTokens(spec, CONFIG, MASKING)
        model(lines(64))["loss"].backward()
        return {name: item.grad for name, item in model.named_parameters() if item.grad is not None}

    alone, together = gradients(0.0), gradients(50.0)
    own = [name for name in alone if name.startswith(("generator.", "guess."))]
    assert own
    # Sampling has no gradient: the discriminator's loss does not train the generator.
    assert all(torch.equal(alone[name], together[name]) for name in own)
    tables = [name for name, item in together.items() if item.shape == (VOCABULARY, CONFIG.hidden_size)]
    assert tables == ["encoder.embeddings.word_embeddings.weight"]
    assert not torch.equal(alone[tables[0]], together[tables[0]])


def test_draw_follows_the_softmax_distribution() -> None:
    set_seed(7)
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
    drawn = draw(shares.log().repeat(20_000, 1))
    found = torch.bincount(drawn, minlength=4) / len(drawn)
    assert found.tolist() == pytest.approx(shares.tolist(), abs=0.01)


def test_view_removes_only_words(spec: EncoderSpec) -> None:
    set_seed(7)
    module = Contrastive(spec, CONFIG, Masking(0.3, MASK, SPECIAL, VOCABULARY))
    ids = torch.cat([torch.full((500, 1), 2), torch.arange(5, 15).expand(500, 10), torch.full((500, 1), 3)], dim=1)
    ids = torch.cat([ids, torch.zeros(500, 3, dtype=torch.long)], dim=1)
    mask = (torch.arange(15) < 12).long().expand(500, 15)
    view, kept = module.view(ids, mask)
    assert view.shape == kept.shape
    assert view.shape[1] == kept.sum(1).max() <= 12
    for row, length in zip(view, kept.sum(1).tolist(), strict=True):
        first, *words, last = row[:length].tolist()
        assert (first, last) == (2, 3)
        # In order, each once.
        assert words == sorted(set(words))
        assert set(words) <= set(range(5, 15))
    assert (kept.sum(1) - 2).float().mean().item() == pytest.approx(7, abs=0.2)
    assert not torch.equal(view, module.view(ids, mask)[0])


def test_contrastive_training_finds_the_other_view(spec: EncoderSpec) -> None:
    set_seed(7)
    module = Contrastive(spec, CONFIG, MASKING)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses, found = [], []
    for _ in range(150):
        # New lines, so that memorised lines do not help.
        words = torch.randint(SPECIAL, VOCABULARY, (64, 8))
        said = module(torch.cat([torch.full((64, 1), 2), words, torch.full((64, 1), 3)], dim=1))
        optimizer.zero_grad()
        said["loss"].backward()
        optimizer.step()
        losses.append(said["loss"].item())
        found.append(said["found"].item())
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])
    assert sum(found[-20:]) > sum(found[:20])
    assert max(found) <= 1
