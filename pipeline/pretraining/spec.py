"""Encoders of our own: how each is pretrained, read from TOML, and where the one that ships lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import RecipeError
from pipeline.recipes.data_schema import Positive
from pipeline.recipes.schema import ScratchSpec
from pipeline.recipes.strict_model import Strict, explain, read_toml

#: How the encoders that ship were pretrained.
ENCODERS = Path(__file__).parent / "encoders"


class EncoderSpec(Strict):
    """An encoder and its pretraining."""

    objective: Literal["masked-language", "replaced-tokens", "contrastive"]
    shape: ScratchSpec
    max_length: Annotated[int, Field(ge=16, le=512, description="tokens of a line, special ones included")]
    positions: Annotated[int, Field(ge=16, le=512, description="longest input that the encoder takes")]
    masked: Annotated[float, Field(gt=0, lt=1, description="share of tokens to be guessed, or left out of a view")]
    generator: Positive = Field(description="hidden size of the generator of replaced tokens")
    steps: Positive
    batch_tokens: Annotated[int, Field(ge=128, description="tokens of a batch, padding included")]
    learning_rate: Annotated[float, Field(gt=0, le=0.1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    decay_steps: Annotated[int, Field(ge=0, description="the rate is held, and falls to nothing over the last steps")]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    @model_validator(mode="after")
    def _steps_suffice(self) -> Self:
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError("`steps` must be at least `warmup_steps` and `decay_steps` together")
        if self.max_length > self.positions:
            raise ValueError("`max_length` must be at most `positions`")
        return self


def load_encoder(name: str, *, steps: int | None = None) -> EncoderSpec:
    """The encoder called `name`, or described by the TOML file `name`; `steps` replaces its own.

    Raises RecipeError naming file, key and what is allowed.
    """
    path = Path(name) if name.endswith(".toml") else ENCODERS / f"{name}.toml"
    if not path.is_file():
        there = ", ".join(sorted(item.stem for item in ENCODERS.glob("*.toml")))
        raise RecipeError(f"no encoder {name!r}; name a TOML file, or one of: {there}")
    document = read_toml(path, path.name) | ({} if steps is None else {"steps": steps})
    try:
        return EncoderSpec.model_validate(document)
    except ValidationError as error:
        raise RecipeError(explain(error, EncoderSpec, path.name)) from error
