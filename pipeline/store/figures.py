"""Figures: the numbers that each stage records in the manifest of its artifact."""

from __future__ import annotations

import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ArtifactError
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.store.artifacts import Artifact


class FiguresPart(BaseModel):
    """A part of a stage's figures; keys that it does not know are ignored."""

    # Keep NaN in JSON: null would mean that the figure is absent.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Figures(FiguresPart):
    """The figures of one stage. The order of the fields is the order of the keys in the manifest.

    A field has a default if a manifest may lack its key, because an older version wrote the manifest or the model has
    no such figure.
    """

    @classmethod
    def read(cls, artifact: Artifact) -> Self:
        """Return the figures of an artifact of this stage. Raises ArtifactError if they are incomplete or damaged."""
        try:
            return cls.model_validate(artifact.manifest.figures)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ArtifactError(
                f"{artifact.uri}: figure {key} of its manifest is damaged ({first['msg']}); run its stage with --force"
            ) from error

    def document(self) -> dict[str, Any]:
        """Return the figures for the manifest; a key that was not given stays absent."""
        return self.model_dump(mode="json", exclude_unset=True)


class Estimate(BaseModel):
    """A figure with its 95% interval. A difference has a 90% interval, whose lower end is compared with the margin."""

    # See `FiguresPart`.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float
    low: float
    high: float


# --- validate ---


class UsedArrival(FiguresPart):
    """A daily file whose rows are in the training data."""

    date: datetime.date
    sha256: str


class ValidationFigures(Figures):
    """Figures of `validate`."""

    train_rows: int = Field(description="rows to train on, arrivals included")
    test_rows: int = Field(description="rows to test on")
    test_in_train: int | None = Field(default=None, description="test rows whose exact text is in train")
    warnings: tuple[str, ...] = Field(default=(), description="one sentence each")
    sample: bool = Field(description="whether the data are the shipped sample")
    cutoff: datetime.date | None = Field(default=None, description="date of the newest arrival in train")
    arrivals: tuple[UsedArrival, ...] = Field(default=(), description="daily files whose rows are in train")
    left_out: tuple[str, ...] = Field(default=(), description="excluded arrivals, one sentence each")
    quarantined: int | None = Field(default=None, description="rows")
    overlap: dict[str, int] = Field(default={}, description="rows by kind of overlap")


class RejectedDataFigures(Figures):
    """Figures of `rejected-data`: data that `validate` rejected."""

    reasons: tuple[str, ...] = Field(description="one sentence each")


# --- tokenize ---


class BaseIdentity(FiguresPart):
    """The base model of a training."""

    base: str
    revision: str | None = Field(description="None if the model is trained from scratch")


class EncodedSplit(FiguresPart):
    """Figures of one encoded split."""

    rows: int
    truncated: float = Field(description="share of the texts")
    unknown: float = Field(description="share of [UNK] among the tokens, without special tokens")
    mean_length: float = Field(description="tokens")


class TokenizationFigures(Figures):
    """Figures of `tokenize`."""

    base: BaseIdentity
    vocabulary: int = Field(description="tokens in the vocabulary")
    train: EncodedSplit
    validation: EncodedSplit
    gate: EncodedSplit
    test: EncodedSplit


# --- train ---


class SeenData(FiguresPart):
    """The data that a model has seen, in its own training and in those of the models that it started from."""

    held_out: float = Field(description="rows whose place (`pipeline.data.splits`) is below this share were held out")
    newest: datetime.date | None = Field(description="date of the newest arrival; None if it has seen none")


class TrainingFigures(Figures):
    """Figures of `train`."""

    seconds: float = Field(description="duration of the training")
    samples_per_second: float | None = Field(default=None, description="rows per second, over all epochs")
    padding: float | None = Field(default=None, description="share of the computed tokens")
    parts: int | None = Field(default=None, description="number of parts of a batch, if memory was short")
    best_epoch: int | None = Field(default=None, description="epoch that was kept, from 1")
    validation: dict[str, float] = Field(description="metrics of the best epoch")
    history: tuple[dict[str, int | float], ...] = Field(default=(), description="what the trainer logged, by epoch")
    parameters: int | None = Field(default=None, description="weights of the model")
    gpu_memory_gib: float | None = Field(default=None, description="peak; absent without a GPU")
    device: str | None = Field(default=None, description="device that it was trained on")
    precision: str | None = Field(default=None, description="number format of the training: fp32 or bf16")
    calibration: ScoreLine | None = Field(default=None, description="map from a bi-encoder's cosines to scores")
    euclidean: ScoreLine | None = Field(default=None, description="map from a bi-encoder's distances to scores")
    base: BaseIdentity
    seen: SeenData | None = None


# --- evaluate ---


class SliceFigures(FiguresPart):
    """The first metric on a part of the test file."""

    slice: str
    part: str
    rows: int
    figure: Estimate | None = Field(description="None if there are too few rows")


class ConfidenceBin(FiguresPart):
    """One bin of a reliability curve."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


class CalibrationFigures(FiguresPart):
    """Expected calibration error of a classification."""

    ece: float
    bins: int
    curve: tuple[ConfidenceBin, ...] = Field(description="the bins that contain rows")


class ClassFigures(FiguresPart):
    """Figures of one label on the test file; 0 if one has no value."""

    label: str
    rows: int
    precision: float
    recall: float
    f1: float


class BehaviourTestFigures(FiguresPart):
    """Results of one behavioural test."""

    name: str
    kind: str
    cases: int
    passed: int


class CapabilityFigures(FiguresPart):
    """Results of the behavioural tests of one capability."""

    rate: Estimate = Field(description="share of the cases passed")
    cases: int
    passed: int
    tests: tuple[BehaviourTestFigures, ...]


class EvaluationFigures(Figures):
    """Figures of `evaluate`."""

    test: dict[str, Estimate] = Field(description="metrics on the test file")
    test_rows: int = Field(description="rows of the test file")
    test_without_train_texts: dict[str, Estimate] = Field(
        description="metrics on rows without a near copy in train (before version 4 of evaluate: an exact one)"
    )
    test_without_train_texts_rows: int = Field(description="number of these rows")
    slices: tuple[SliceFigures, ...] = Field(description="the first metric on parts of the test file")
    calibration: CalibrationFigures | None = Field(default=None, description="of a classification")
    classes: tuple[ClassFigures, ...] = Field(default=(), description="of a classification, by label")
    similarity: dict[str, dict[str, Estimate]] = Field(
        default={}, description="metrics of a bi-encoder by similarity measure"
    )
    gate: dict[str, Estimate] = Field(description="metrics on the gate split")
    gate_rows: int = Field(description="rows of the gate split")
    behaviour: dict[str, CapabilityFigures] = Field(description="behavioural tests by capability")
    sample: bool = Field(description="figures on the sample must not be compared with figures on real data")


# --- decide, export, reviewers ---


class DecisionFigures(Figures):
    """Figures of `decide`, for Weights & Biases and `--json`; the decision itself is `decision.json`."""

    promote: bool = Field(description="whether the model passed its gates")
    reason: str = Field(description="one sentence")


class ReleaseFigures(Figures):
    """Figures of `export`. Further keys are the metrics on the test file, by name."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="id of the release")
    variants: dict[str, tuple[str, ...]] = Field(description="names of the files for each device, best first")
    parity: dict[str, dict[str, float]] = Field(description="differences from the trained model, by precision")
    latency_ms: float = Field(description="one input on a CPU, p95")


class RejectionFigures(Figures):
    """Figures of a rejection by a reviewer."""

    by: str = Field(description="who rejected the model, as a sentence")
