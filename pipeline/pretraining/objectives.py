"""Pretraining objectives: masked tokens (BERT), replaced tokens (ELECTRA), or two views of a line (SimCSE)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from pipeline.models.heads import mean_state
from pipeline.pretraining.spec import EncoderSpec

#: Of the tokens to predict, the share that is replaced by [MASK], and by a random token; the rest stays unchanged
#: (Devlin et al. 2019, section 3.1).
HIDDEN, OTHER = 0.8, 0.1
#: Temperature of the contrastive loss (Gao et al. 2021, section 3).
TEMPERATURE = 0.05
#: Weight of the discriminator's loss relative to the generator's (Clark et al. 2020, section 3.1).
DISCRIMINATOR = 50.0


@dataclass(frozen=True)
class Masking:
    """Dynamic masking: draw the tokens to predict again in each call."""

    share: float
    mask: int
    special: int
    "Ids below this one are special tokens: they are never predicted, and never used as replacement."
    vocabulary: int

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return `ids` (batch, length) with some tokens masked, and a mask (batch, length) of those to predict.

        At least one token of the batch is masked.
        """
        words = ids >= self.special
        drawn = torch.rand(ids.shape, device=ids.device).masked_fill(~words, 1.0)
        chosen = (drawn < self.share) & words
        if not chosen.any():
            chosen.view(-1)[drawn.argmin()] = True
        fate = torch.rand(ids.shape, device=ids.device)
        others = torch.randint(self.special, self.vocabulary, ids.shape, device=ids.device)
        hidden = torch.where(chosen & (fate < HIDDEN), self.mask, ids)
        return torch.where(chosen & (fate >= HIDDEN) & (fate < HIDDEN + OTHER), others, hidden), chosen


class Guess(nn.Module):
    """Prediction head: hidden states to logits over the vocabulary, tied to the encoder's embeddings."""

    def __init__(self, hidden: int, embeddings: int, vocabulary: int) -> None:
        """`hidden` is the size of the states, `embeddings` the size of the token embeddings."""
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(hidden, embeddings), nn.GELU(), nn.LayerNorm(embeddings))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """Return logits (n, vocabulary) for states (n, hidden) and the embeddings `table` (vocabulary, embeddings)."""
        return functional.linear(self.transform(states), table, self.bias)


class MaskedLanguage(nn.Module):
    """Masked language modelling: predict masked tokens."""

    def __init__(self, spec: EncoderSpec, config: BertConfig, masking: Masking) -> None:
        """`config` is the configuration of the encoder."""
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.guess = Guess(config.hidden_size, config.hidden_size, config.vocab_size)
        self.masking = masking

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return the `loss` for one random masking, and `guessed`, the share of correctly predicted tokens."""
        masked, chosen = self.masking(input_ids)
        states = self.encoder(input_ids=masked, attention_mask=attention_mask).last_hidden_state[chosen]
        logits = self.guess(states, self.encoder.embeddings.word_embeddings.weight)
        loss = functional.cross_entropy(logits, input_ids[chosen])
        return {"loss": loss, "guessed": share_right(logits, input_ids[chosen])}


class ReplacedTokens(nn.Module):
    """Replaced token detection: the encoder detects the tokens that a small generator has replaced.

    The generator predicts masked tokens and shares the encoder's embeddings.
    """

    def __init__(self, spec: EncoderSpec, config: BertConfig, masking: Masking) -> None:
        """`config` is the encoder's; the generator has the same depth and hidden size `spec.generator`."""
        super().__init__()
        width = config.hidden_size
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.tell = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.narrow = nn.Linear(width, spec.generator)
        # The generator uses the encoder's embeddings, so its own table has only one row.
        small = BertConfig(
            **config.to_diff_dict()
            | {
                "vocab_size": 1,
                "pad_token_id": 0,
                "hidden_size": spec.generator,
                "num_attention_heads": max(1, spec.generator // 64),
                "intermediate_size": 4 * spec.generator,
            }
        )
        self.generator = BertModel(small, add_pooling_layer=False)
        self.guess = Guess(spec.generator, width, config.vocab_size)
        self.masking = masking

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return the weighted `loss` for one random masking, and the figures of both parts.

        `guessed` is the share of correctly predicted tokens, `telling` the discriminator's loss, and `told` the share
        of replaced tokens that were detected.
        """
        masked, chosen = self.masking(input_ids)
        table = self.encoder.embeddings.word_embeddings.weight
        embedded = self.narrow(functional.embedding(masked, table))
        states = self.generator(inputs_embeds=embedded, attention_mask=attention_mask).last_hidden_state[chosen]
        logits = self.guess(states, table)
        asked = input_ids[chosen]
        guessing = functional.cross_entropy(logits, asked)
        drawn = draw(logits.detach())
        shown = input_ids.masked_scatter(chosen, drawn)
        told = self.tell(self.encoder(input_ids=shown, attention_mask=attention_mask).last_hidden_state).squeeze(-1)
        replaced = shown != input_ids
        real = torch.ones_like(replaced) if attention_mask is None else attention_mask.bool()
        telling = functional.binary_cross_entropy_with_logits(told[real], replaced[real].float())
        return {
            "loss": guessing + DISCRIMINATOR * telling,
            "guessed": share_right(logits, asked),
            "telling": telling.detach(),
            "told": (told[replaced] > 0).float().mean(),
        }


class Contrastive(nn.Module):
    """Contrastive learning: match two views of the same line, each with different tokens removed.

    SimCSE (Gao et al. 2021), with token deletion in addition to dropout.
    """

    def __init__(self, spec: EncoderSpec, config: BertConfig, masking: Masking) -> None:
        """`config` is the encoder's; tokens are removed with the probability `masking.share`."""
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.masking = masking

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return the `loss` for two views of each line, and `found`, the share of lines whose other view is nearest."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        one, other = (self._vectors(*self.view(input_ids, mask)) for _ in range(2))
        cosines = one @ other.T / TEMPERATURE
        same = torch.arange(len(cosines), device=cosines.device)
        loss = (functional.cross_entropy(cosines, same) + functional.cross_entropy(cosines.T, same)) / 2
        return {"loss": loss, "found": share_right(cosines, same)}

    def view(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Remove random tokens from `ids` (batch, length); return the shortened ids and mask, (batch, longest)."""
        words = (ids >= self.masking.special) & mask.bool()
        kept = mask.bool() & ~(words & (torch.rand(ids.shape, device=ids.device) < self.masking.share))
        lengths = kept.sum(1)
        longest = int(lengths.max())
        order = (~kept).int().argsort(dim=1, stable=True)[:, :longest]
        return ids.gather(1, order), (torch.arange(longest, device=ids.device) < lengths[:, None]).long()

    def _vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return functional.normalize(mean_state(states, mask).float(), dim=-1)


@torch.no_grad()
def share_right(logits: Tensor, asked: Tensor) -> Tensor:
    """Return the share of rows of `logits` (n, vocabulary) whose maximum is at the index `asked` (n,)."""
    # Not `argmax`, which takes 5% of a step on a CPU.
    return (logits.gather(1, asked[:, None]).squeeze(1) >= logits.amax(-1)).float().mean()


def draw(logits: Tensor) -> Tensor:
    """Sample one token (n,) for each row of `logits` (n, vocabulary), from the softmax distribution."""
    sums = logits.softmax(-1).cumsum(-1)
    points = torch.rand(len(sums), 1, device=sums.device) * sums[:, -1:]
    return torch.searchsorted(sums, points).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


#: Objective by its name in an encoder's TOML file.
OBJECTIVES: dict[str, Callable[[EncoderSpec, BertConfig, Masking], nn.Module]] = {
    "masked-language": MaskedLanguage,
    "replaced-tokens": ReplacedTokens,
    "contrastive": Contrastive,
}
