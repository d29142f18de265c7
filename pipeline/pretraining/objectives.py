"""What an encoder is pretrained by: hidden tokens (BERT), replaced ones (ELECTRA), or two views of a line (SimCSE)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from pipeline.models.heads import mean_state
from pipeline.pretraining.spec import EncoderSpec

#: Of the tokens that are to be guessed, the share that is hidden behind [MASK], and that becomes another token; the
#: rest stays as it is (Devlin et al. 2019, section 3.1).
HIDDEN, OTHER = 0.8, 0.1
#: What cosines are divided by before one view of a line is looked for among others (Gao et al. 2021, section 3).
TEMPERATURE = 0.05
#: Weight of the discriminator's loss beside the generator's (Clark et al. 2020, section 3.1).
DISCRIMINATOR = 50.0


@dataclass(frozen=True)
class Masking:
    """Which tokens are to be guessed, drawn anew each time."""

    share: float
    mask: int
    special: int
    "Ids below this one are special tokens: never guessed, and nothing becomes one."
    vocabulary: int

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`ids` (batch, length) with some of them hidden, and which are to be guessed (batch, length), at least one."""
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
    """Hidden states to a score for each token of the vocabulary, by the encoder's own embeddings."""

    def __init__(self, hidden: int, embeddings: int, vocabulary: int) -> None:
        """From states of `hidden` to embeddings of `embeddings` numbers."""
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(hidden, embeddings), nn.GELU(), nn.LayerNorm(embeddings))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """Logits (n, vocabulary) for states (n, hidden) and the embeddings `table` (vocabulary, embeddings)."""
        return functional.linear(self.transform(states), table, self.bias)


class MaskedLanguage(nn.Module):
    """Guess hidden tokens: masked-language modelling."""

    def __init__(self, spec: EncoderSpec, config: BertConfig, masking: Masking) -> None:
        """`config` is the encoder's."""
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.guess = Guess(config.hidden_size, config.hidden_size, config.vocab_size)
        self.masking = masking

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of one draw, and the share of tokens that were guessed right."""
        masked, chosen = self.masking(input_ids)
        states = self.encoder(input_ids=masked, attention_mask=attention_mask).last_hidden_state[chosen]
        logits = self.guess(states, self.encoder.embeddings.word_embeddings.weight)
        loss = functional.cross_entropy(logits, input_ids[chosen])
        return {"loss": loss, "guessed": share_right(logits, input_ids[chosen])}


class ReplacedTokens(nn.Module):
    """Tell which tokens a generator has replaced; it guesses hidden ones, and shares the encoder's embeddings."""

    def __init__(self, spec: EncoderSpec, config: BertConfig, masking: Masking) -> None:
        """`config` is the encoder's; the generator is as deep and `spec.generator` wide."""
        super().__init__()
        width = config.hidden_size
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.tell = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.narrow = nn.Linear(width, spec.generator)
        # Its words come from the encoder's embeddings: its own table has one.
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
        """Both losses of one draw, weighed; the share of tokens guessed right, and of replaced ones told."""
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
    """Find the other view of a line among those of other lines; views lack tokens, each other ones.

    Gao et al. 2021 (SimCSE), with words left out beside dropout.
    """

    def __init__(self, spec: EncoderSpec, config: BertConfig, masking: Masking) -> None:
        """`config` is the encoder's; a token is left out where `masking` would have it guessed."""
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.masking = masking

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of two views of each line, and the share of lines whose other view is the nearest."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        one, other = (self._vectors(*self.view(input_ids, mask)) for _ in range(2))
        cosines = one @ other.T / TEMPERATURE
        same = torch.arange(len(cosines), device=cosines.device)
        loss = (functional.cross_entropy(cosines, same) + functional.cross_entropy(cosines.T, same)) / 2
        return {"loss": loss, "found": share_right(cosines, same)}

    def view(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`ids` (batch, length) without some of their words, and their mask; both as long as the longest is then."""
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
    """The share of rows of `logits` (n, vocabulary) in which nothing is above the token `asked` (n,) for."""
    # Not `argmax`, which takes a twentieth of a step on a CPU.
    return (logits.gather(1, asked[:, None]).squeeze(1) >= logits.amax(-1)).float().mean()


def draw(logits: Tensor) -> Tensor:
    """One token (n,) of each row of `logits` (n, vocabulary), as likely as they say."""
    sums = logits.softmax(-1).cumsum(-1)
    points = torch.rand(len(sums), 1, device=sums.device) * sums[:, -1:]
    return torch.searchsorted(sums, points).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


#: Name in an encoder's TOML to the objective.
OBJECTIVES: dict[str, Callable[[EncoderSpec, BertConfig, Masking], nn.Module]] = {
    "masked-language": MaskedLanguage,
    "replaced-tokens": ReplacedTokens,
    "contrastive": Contrastive,
}
