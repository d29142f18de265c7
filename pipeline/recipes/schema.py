"""Schema of recipes: one data set with all settings of its pipeline, read from TOML into frozen models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.recipes.behaviour import Behaviour
from pipeline.recipes.data_schema import DataSpec, Positive, SourceSpec
from pipeline.recipes.kinds.registry import kind_of
from pipeline.recipes.kinds.task_kind import Inputs, Kind, Objective, TaskKind
from pipeline.recipes.labels import check_labels
from pipeline.recipes.strict_model import Strict

#: `model.base` of a recipe that trains encoder and vocabulary from scratch on its own data.
SCRATCH = "scratch"


class ScratchSpec(Strict):
    """Shape of an encoder that is trained from scratch."""

    vocabulary: Annotated[int, Field(ge=500, le=64_000, description="maximum tokens of the WordPiece vocabulary")]
    layers: Annotated[int, Field(ge=1, le=24, description="transformer layers")]
    hidden: Annotated[int, Field(ge=32, le=1024, description="size of a token's state")]
    heads: Positive = Field(description="attention heads per layer; `hidden` must be a multiple of it")
    intermediate: Positive = Field(description="size of the feed-forward layer")
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout during the training")]

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class ModelSpec(Strict):
    """The model to fine-tune, and its objective."""

    base: str = Field(default="mini", min_length=1, description=f"'mini', a hub id, a local directory, or {SCRATCH!r}")
    objective: Objective | None = Field(default=None, description="for pairs only")
    pooling: Literal["cls", "mean"] = Field(
        default="mean", description="vector of a text: the state of [CLS], or the mean of all states"
    )
    max_length: Annotated[int, Field(ge=8, le=512)] = Field(
        default=128, description="maximum tokens per text or pair, special ones included; longer inputs are truncated"
    )
    unknown_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1,
        description="maximum share of a split's tokens that are [UNK]; a larger one shows a wrong vocabulary",
    )
    scratch: ScratchSpec | None = Field(default=None, description="shape of the encoder if `base` is 'scratch'")


class TrainSpec(Strict):
    """Hyperparameters of fine-tuning; the defaults suit the base model `mini` (docs/results/models.md)."""

    later = frozenset({"class_weights", "focal"})

    epochs: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="passes over the training rows; the best one on the validation rows is kept"
    )
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = Field(default=4.5e-4, description="peak learning rate")
    batch_size: Annotated[int, Field(ge=1, le=4096)] = Field(default=32, description="rows per training step")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="share of the steps in which the learning rate rises from 0 to its peak"
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(default=0.1, description="weight decay of AdamW")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(default=7, description="random seed of the training")
    tune: Literal["full", "head"] = Field(
        default="full", description="full: all weights; head: only the head, with a frozen base model"
    )
    start: Literal["base", "champion"] = Field(default="base", description="model whose weights training starts from")
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="dropout in the base model during fine-tuning. Default: its configuration's"
    )
    frozen_layers: Annotated[int, Field(ge=0)] = Field(
        default=0, description="number of lowest layers of the base model that stay frozen; embeddings are the first"
    )
    left_out: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of random tokens to drop from a bi-encoder's texts, drawn again each time"
    )
    strangers: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="share of a bi-encoder's pairs that get another pair's second text and the lowest score",
    )
    joined: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="share of a bi-encoder's pairs to concatenate with another pair; the score is the mean",
    )
    class_weights: bool = Field(
        default=False, description="weight rows so that every label counts the same; F1 then selects the best epoch"
    )
    focal: Annotated[float, Field(ge=0, le=5)] = Field(
        default=0.0, description="gamma of the focal loss, which weights rows by how wrong they are; 0 = cross-entropy"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="learning rate of each layer as a share of the rate of the layer above it"
    )


class GateSpec(Strict):
    """Conditions for a release: thresholds per metric and per capability, and a margin against the champion."""

    floors: dict[str, float] = Field(
        default={}, description="threshold per metric; a model is refused while a metric has none"
    )
    behaviour: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={},
        description="minimum share of passed cases per capability; empty for a recipe without behavioural tests",
    )
    margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.02, description="non-inferiority margin on the recipe's first metric"
    )

    def floor_of(self, metric: str) -> float:
        """Return the threshold of a metric; 1 if there is none."""
        return self.floors.get(metric, 1.0)


class ParityBound(Strict):
    """Maximum differences between the exported and the trained model on real sentences."""

    changed_labels: Annotated[float, Field(ge=0, le=1, description="maximum share of changed labels")]
    metric_change: Annotated[float, Field(ge=0, le=1, description="maximum change of the first metric")]


class ExportSpec(Strict):
    """Bounds of the exported model."""

    sentences: Annotated[int, Field(ge=100)] = Field(
        default=1000, description="real sentences on which parity is measured; fewer if the test file is smaller"
    )
    int8: ParityBound = Field(
        default=ParityBound(changed_labels=0.01, metric_change=0.006), description="bounds of the int8 file, for CPUs"
    )
    fp16: ParityBound = Field(
        default=ParityBound(changed_labels=0.002, metric_change=0.001), description="bounds of the fp16 file, for GPUs"
    )
    latency_ms: Annotated[float, Field(gt=0)] = Field(
        default=100.0, description="maximum p95 latency of one input, in milliseconds"
    )


class Recipe(Strict):
    """A recipe: one data set from validation to deployment."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="set by the name of the file")]
    title: str = Field(description="name of the recipe in forms and reports. Default: the name of the file")
    kind: Kind = Field(description="labels (`classification`) or scores (`regression`)")
    inputs: Inputs = Field(default="text", description="single texts, or pairs of texts")
    profile: str = Field(description="set by `--profile` or SAEBYEOK_PROFILE: tables of `profiles` override the others")
    sample: bool = Field(default=False, description="set if the run uses the shipped sample")
    overridden: tuple[str, ...] = Field(
        default=(),
        exclude=True,
        description="set to the dotted keys that the run changes, by options or the trigger form",
    )
    labels: tuple[str, ...] = Field(default=(), strict=False, description="label names, in the order 0, 1, ...")
    renamed_labels: dict[str, str] = Field(
        default={}, description="labels of earlier models that have another name now: old name to new name"
    )
    score_range: tuple[float, float] | None = Field(
        default=None, strict=False, description="lowest and highest score of a regression"
    )
    similar_at: float | None = Field(
        default=None, description="lowest score that counts as positive for F1. Default: the middle of the range"
    )
    data: DataSpec = Field(description="the files and the bounds of the data gate")
    source: SourceSpec | None = Field(default=None, description="where `SAEBYEOK_SOURCE` finds the files")
    model: ModelSpec = Field(default=ModelSpec(), description="the model to fine-tune")
    train: TrainSpec = Field(default=TrainSpec(), description="hyperparameters")
    gate: GateSpec = Field(default=GateSpec(), description="thresholds and margin of the promotion gate")
    export: ExportSpec = Field(default=ExportSpec(), description="bounds of the exported model")
    behaviour: Behaviour = Field(description="read from behaviour/<name>.toml, next to the recipe")

    @property
    def task(self) -> TaskKind:
        """The kind of task that the model learns."""
        return kind_of(self.kind, self.inputs, self.model.objective)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the metrics of this kind; the first one decides."""
        return self.task.metrics

    @property
    def selection_metric(self) -> str:
        """Return the metric on the validation rows that selects the best epoch or trial.

        It is the first one. With class weights it is F1, because accuracy selects an epoch that neglects rare labels.
        """
        return "f1" if self.train.class_weights else self.metrics[0]

    @property
    def text_columns(self) -> list[str]:
        """Return the names of the text columns in artifacts: `text`, and for pairs also `text_pair`."""
        return list(self.task.texts)

    def names_now(self, labels: Sequence[str]) -> list[str]:
        """Return the names that the labels of an earlier model have now."""
        return [self.renamed_labels.get(name, name) for name in labels]

    @model_validator(mode="before")
    @classmethod
    def _similar_from_the_middle(cls, fields: Any) -> Any:
        """Set a missing `similar_at` to the middle of the score range."""
        match fields:
            case {"score_range": [float() | int() as low, float() | int() as high]}:
                return {"similar_at": (low + high) / 2} | fields
        return fields

    @model_validator(mode="after")
    def _kind_has_its_fields(self) -> Self:
        self.task.check(self)
        check_labels(self.labels)
        if unknown := set(self.renamed_labels.values()) - set(self.labels):
            raise ValueError(f"`renamed_labels` must lead to names in `labels`, not to {', '.join(sorted(unknown))}")
        if reused := set(self.renamed_labels) & set(self.labels):
            # The next model knows the new meaning, and its answers would be renamed, too.
            raise ValueError(
                f"`renamed_labels` must not rename {', '.join(sorted(reused))}, which `labels` still contains: a model "
                "with these labels may have the old or the new meaning; choose other names"
            )
        if self.score_range and not self.score_range[0] < (self.similar_at or 0) < self.score_range[1]:
            raise ValueError("`score_range` must be [lowest, highest] with `similar_at` between them")
        return self

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        if (count := len(self.task.texts)) != len(self.data.texts):
            raise ValueError(f"`data.texts` must name {'one column' if count == 1 else 'two columns'}")
        if self.model.base == SCRATCH and self.model.scratch is None:
            raise ValueError(f"`model.base` = {SCRATCH!r} needs the table `model.scratch`")
        if self.train.dropout is not None and self.model.base == SCRATCH:
            raise ValueError(
                "`train.dropout` is only for base models; to train from scratch, set `model.scratch.dropout` instead"
            )
        if self.train.frozen_layers and self.model.base == SCRATCH:
            raise ValueError("`train.frozen_layers` must be 0 from scratch, because no layer is pretrained")
        if self.train.frozen_layers and self.train.tune == "head":
            raise ValueError("`train.frozen_layers` must be 0 if `train.tune` = head, which freezes all layers")
        mixed = self.train.left_out or self.train.strangers or self.train.joined
        if mixed and not self.task.augments:
            raise ValueError("`train.left_out`, `train.strangers` and `train.joined` must be 0 except for bi-encoders")
        if (self.train.class_weights or self.train.focal) and self.task.answers != "probabilities":
            raise ValueError("`train.class_weights` and `train.focal` are only for classifications")
        if self.train.tune == "head" and self.model.base == SCRATCH:
            raise ValueError(
                "`train.tune` = head needs a pretrained encoder; set `model.base` to a base model, or `train.tune` to "
                "full"
            )
        if self.train.start == "champion" and self.model.base == SCRATCH:
            raise ValueError(
                "`train.start` = champion needs a base model, because from scratch each run has its own vocabulary; "
                "set `model.base` to one, or `train.start` to base"
            )
        if self.train.tune == "head" and not self.task.trains_head:
            raise ValueError("`train.tune` = head is not for a bi-encoder, which has no head; set it to full")
        return self

    @model_validator(mode="after")
    def _sources_fit_the_files(self) -> Self:
        sources = {"source": self.source, "source.hub": self.source.hub} if self.source else {}
        for table, source in sources.items():
            # A source of one kind may be missing, but not half of it.
            if source and bool(source.test) != bool(source.train and self.data.test):
                raise ValueError(f"`{table}` must have `train`, and `test` only if `data.test` names a test file")
        return self

    @model_validator(mode="after")
    def _thresholds_are_valid(self) -> Self:
        for metric, floor in self.gate.floors.items():
            if metric not in self.metrics:
                raise ValueError(
                    f"`gate.floors.{metric}`: a {self.kind} recipe has only the metrics {', '.join(self.metrics)}; "
                    "remove it"
                )
            if not 0 < floor < 1:
                raise ValueError(f"`gate.floors.{metric}` must be above 0 and below 1, not {floor}")
        return self

    @model_validator(mode="after")
    def _behaviour_is_bounded(self) -> Self:
        for test in self.behaviour.tests:
            test.check(self.task, self.labels)
        capabilities = self.behaviour.capabilities
        for name in capabilities:
            if name not in self.gate.behaviour:
                raise ValueError(
                    f"`gate.behaviour.{name}` is missing: behaviour/{self.name}.toml tests this capability"
                )
        for name in self.gate.behaviour:
            if name not in capabilities:
                tested = ", ".join(capabilities) or "nothing"
                raise ValueError(
                    f"`gate.behaviour.{name}`: behaviour/{self.name}.toml has no test of this capability; it tests "
                    f"{tested}"
                )
        return self
