"""Recipes: one data set and all that the pipeline must know of it, read from TOML into frozen models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.recipes.behaviour import Behaviour
from pipeline.recipes.data_schema import DataSpec, Positive, SourceSpec
from pipeline.recipes.kinds import Inputs, Kind
from pipeline.recipes.strict_model import Strict

#: Names of the text columns, whatever the file calls them.
TEXTS = ("text", "text_pair")


#: `model.base` of a recipe whose encoder and vocabulary come from its own training data.
SCRATCH = "scratch"
METRICS = {"classification": ("accuracy", "f1"), "regression": ("pearson", "f1")}


class ScratchSpec(Strict):
    """Shape of an encoder that starts from nothing but the training data."""

    vocabulary: Annotated[int, Field(ge=500, le=64_000)]
    layers: Annotated[int, Field(ge=1, le=24)]
    hidden: Annotated[int, Field(ge=32, le=1024)]
    heads: Positive
    intermediate: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class ModelSpec(Strict):
    """What is fine-tuned, and to which end."""

    base: str = Field(min_length=1, description=f"'mini', a hub id, a local directory, or {SCRATCH!r}")
    objective: Literal["cross-encoder", "bi-encoder"] | None = Field(default=None, description="for pairs only")
    pooling: Literal["cls", "mean"] = Field(description="what a head or a comparison reads: [CLS], or the mean")
    max_length: Annotated[int, Field(ge=8, le=512)]
    scratch: ScratchSpec | None = None


class TrainSpec(Strict):
    """Hyperparameters of fine-tuning."""

    epochs: Annotated[int, Field(ge=1, le=100)]
    learning_rate: Annotated[float, Field(gt=0, le=0.1)]
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    tune: Literal["full", "head"] = Field(default="full", description="head: the base model itself stays as it is")
    start: Literal["base", "champion"] = Field(default="base", description="from whose weights training starts")
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="in the base model while it is tuned; without it, as its configuration says"
    )
    frozen_layers: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of the base model, from below, that stay as they are; its embeddings are the first"
    )
    left_out: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the tokens left out of a bi-encoder's texts, others each time"
    )
    strangers: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of a bi-encoder's pairs whose second text is another pair's, scored lowest"
    )
    joined: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="share of a bi-encoder's pairs to which another is appended, scored by their mean",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="each layer's learning rate, from the head down, as a share of that above it"
    )


class GateSpec(Strict):
    """What a model must reach to be released: a floor a metric and a capability, a margin against the champion."""

    floors: dict[str, float]
    behaviour: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        description="smallest share of passed cases a capability; an empty table for a recipe without behavioural tests"
    )
    margin: Annotated[float, Field(gt=0, lt=1, description="non-inferiority margin on the recipe's first metric")]


class ParityBound(Strict):
    """How far an exported model may be from the trained one on real sentences."""

    changed_labels: Annotated[float, Field(ge=0, le=1, description="largest share of changed labels")]
    metric_change: Annotated[float, Field(ge=0, le=1, description="largest change of the first metric")]


class ExportSpec(Strict):
    """Bounds of the exported model."""

    sentences: Annotated[int, Field(ge=100, description="real sentences on which parity is measured")]
    int8: ParityBound
    fp16: ParityBound
    latency_ms: Annotated[float, Field(gt=0, description="largest p95 for one input, milliseconds")]


class Recipe(Strict):
    """One data set, end to end."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    kind: Kind
    inputs: Inputs
    profile: str
    sample: bool = False
    labels: tuple[str, ...] = Field(default=(), strict=False, description="label names, in the order 0, 1, ...")
    score_range: tuple[float, float] | None = Field(default=None, strict=False)
    similar_at: float | None = Field(default=None, description="scores from here up count as positive for F1")
    data: DataSpec
    source: SourceSpec | None = None
    model: ModelSpec
    train: TrainSpec
    gate: GateSpec
    export: ExportSpec
    behaviour: Behaviour = Field(description="read from behaviour/<name>.toml beside the recipe")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of this kind, the deciding one first."""
        return METRICS[self.kind]

    @property
    def text_columns(self) -> list[str]:
        """Our names of the text columns: `text`, and for pairs `text_pair`."""
        return list(TEXTS[: len(self.data.texts)])

    @model_validator(mode="after")
    def _kind_has_its_fields(self) -> Self:
        if self.kind == "classification" and len(self.labels) < 2:
            raise ValueError("a classification recipe needs `labels`, at least two")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"`labels` must be different from each other, not {', '.join(self.labels)}")
        if self.kind == "regression" and (self.score_range is None or self.similar_at is None):
            raise ValueError("a regression recipe needs `score_range` and `similar_at`")
        if self.score_range and not self.score_range[0] < (self.similar_at or 0) < self.score_range[1]:
            raise ValueError("`score_range` must be [lowest, highest] with `similar_at` between them")
        return self

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        if len(self.data.texts) != (2 if self.inputs == "pair" else 1):
            raise ValueError(f"`data.texts` must name {'two columns' if self.inputs == 'pair' else 'one column'}")
        if (self.model.objective is None) == (self.inputs == "pair"):
            raise ValueError("`model.objective` is for pairs, and pairs need one: cross-encoder or bi-encoder")
        if self.model.objective == "bi-encoder" and self.kind != "regression":
            raise ValueError("`model.objective` bi-encoder is for regression: it learns a score")
        if self.model.base == SCRATCH and self.model.scratch is None:
            raise ValueError(f"`model.base` {SCRATCH!r} needs `model.scratch`")
        if self.train.dropout is not None and self.model.base == SCRATCH:
            raise ValueError("`train.dropout` is for base models; from scratch it is `model.scratch.dropout`")
        if self.train.frozen_layers and self.model.base == SCRATCH:
            raise ValueError("`train.frozen_layers` is for base models: from scratch no layer knows anything")
        if self.train.frozen_layers and self.train.tune == "head":
            raise ValueError("`train.frozen_layers` must be 0 where `train.tune` is head: no layer is trained then")
        mixed = self.train.left_out or self.train.strangers or self.train.joined
        if mixed and self.model.objective != "bi-encoder":
            raise ValueError("`train.left_out`, `train.strangers`, `train.joined` are for bi-encoders; else they are 0")
        if self.train.tune == "head" and self.model.base == SCRATCH:
            raise ValueError("`train.tune` head leaves the base model as it is: from scratch it knows nothing")
        if self.train.start == "champion" and self.model.base == SCRATCH:
            raise ValueError("`train.start` champion: from scratch, every night learns a vocabulary of its own")
        if self.train.tune == "head" and self.model.objective == "bi-encoder":
            raise ValueError("`train.tune` head: a bi-encoder has no head, its vectors are the base model's own")
        return self

    @model_validator(mode="after")
    def _thresholds_are_there(self) -> Self:
        for metric in self.metrics:
            if metric not in self.gate.floors:
                raise ValueError(f"`gate.floors.{metric}` is missing: every metric of a {self.kind} needs a floor")
        for metric, floor in self.gate.floors.items():
            if metric not in self.metrics:
                raise ValueError(f"`gate.floors.{metric}`: not a metric of a {self.kind} ({', '.join(self.metrics)})")
            if not 0 < floor < 1:
                raise ValueError(f"`gate.floors.{metric}` must be above 0 and below 1, not {floor}")
        return self

    @model_validator(mode="after")
    def _behaviour_is_bounded(self) -> Self:
        for test in self.behaviour.tests:
            test.check(pair=self.inputs == "pair", labels=self.labels)
        capabilities = self.behaviour.capabilities
        for name in capabilities:
            if name not in self.gate.behaviour:
                raise ValueError(f"`gate.behaviour.{name}` is missing: behaviour/{self.name}.toml tests it")
        for name in self.gate.behaviour:
            if name not in capabilities:
                tested = ", ".join(capabilities) or "nothing"
                raise ValueError(f"`gate.behaviour.{name}`: not tested in behaviour/{self.name}.toml ({tested})")
        return self
