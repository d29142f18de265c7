"""Specifications of pretrained encoders, read from TOML files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import RecipeError
from pipeline.recipes.data_schema import Positive
from pipeline.recipes.files import read_toml
from pipeline.recipes.schema import ScratchSpec
from pipeline.recipes.strict_model import Strict, explain

#: Specifications of the encoders that ship with Saebyeok.
ENCODERS = Path(__file__).parent / "encoders"


class EncoderSpec(Strict):
    """Specification of an encoder and its pretraining."""

    objective: Literal["masked-language", "replaced-tokens", "contrastive"] = Field(
        description="masked language modelling (BERT), replaced token detection (ELECTRA), or sentence vectors from "
        "two views of each sentence (contrastive)"
    )
    shape: ScratchSpec = Field(description="shape of the encoder")
    max_length: Annotated[int, Field(ge=16, le=512, description="maximum tokens per line, special ones included")]
    positions: Annotated[int, Field(ge=16, le=512, description="maximum input length of the encoder in tokens")]
    masked: Annotated[float, Field(gt=0, lt=1, description="share of tokens to predict, or to remove from a view")]
    generator: Positive = Field(description="hidden size of the generator that replaces tokens")
    steps: Positive = Field(description="training steps")
    batch_tokens: Annotated[int, Field(ge=128, description="tokens per batch, padding included")]
    learning_rate: Annotated[float, Field(gt=0, le=0.1, description="peak learning rate")]
    warmup_steps: Annotated[int, Field(ge=0, description="steps in which the learning rate rises to its peak")]
    decay_steps: Annotated[
        int, Field(ge=0, description="number of final steps over which the learning rate decays to 0")
    ]
    weight_decay: Annotated[float, Field(ge=0, le=1, description="weight decay of AdamW")]
    seed: Annotated[int, Field(ge=0, lt=2**32, description="random seed of the pretraining")]

    @model_validator(mode="after")
    def _steps_suffice(self) -> Self:
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError("`steps` must be at least the sum of `warmup_steps` and `decay_steps`")
        if self.max_length > self.positions:
            raise ValueError("`max_length` must be at most `positions`")
        return self


def load_encoder(name: str, *, steps: int | None = None) -> EncoderSpec:
    """Return the encoder called `name`, or the one in the TOML file `name`; `steps` overrides its own.

    Raises RecipeError with file, key and allowed values.
    """
    path = Path(name) if name.endswith(".toml") else ENCODERS / f"{name}.toml"
    if not path.is_file():
        there = ", ".join(sorted(item.stem for item in ENCODERS.glob("*.toml")))
        raise RecipeError(f"there is no encoder {name!r}; give a TOML file, or one of: {there}")
    document = read_toml(path, path.name) | ({} if steps is None else {"steps": steps})
    try:
        return EncoderSpec.model_validate(document)
    except ValidationError as error:
        raise RecipeError(explain(error, EncoderSpec, path.name)) from error
