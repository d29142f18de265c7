"""What a recipe says of its data: the files, how they are read, and the bounds of the data gate."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.recipes.strict_model import Strict

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Level = Literal["ok", "warning", "critical"]


def exceeds(count: int, rows: int, share: float) -> bool:
    """Return whether `count` of `rows` rows are a larger share than `share`; exactly `share` is not larger."""
    # `count > share * rows` is not the same: in binary 0.29 * 100 is a little below 29.
    return count > 0 and count / rows > share


class OverlapSpec(Strict):
    """Largest shares of rows whose normalised text stands elsewhere too; beyond one of them a run stops."""

    test_in_train: Share = Field(description="of the test rows, those whose text is in train")
    two_labels: Share = Field(description="of a file's rows, those whose text has another label too")
    duplicates: Share = Field(description="of a file's rows, those that repeat an earlier text")


class Largest(Strict):
    """Two bounds that a figure must not go above."""

    warning: float
    critical: float

    @model_validator(mode="after")
    def _critical_is_further(self) -> Self:
        if self.critical < self.warning:
            raise ValueError("critical must not be below warning")
        return self

    def level_of(self, figure: float) -> Level:
        """How far a figure is above what it should be."""
        return "critical" if figure > self.critical else "warning" if figure > self.warning else "ok"


class Factors(Largest):
    """How many times more, or fewer, than usual."""

    warning: Annotated[float, Field(gt=1)]
    critical: Annotated[float, Field(gt=1)]


class Shares(Largest):
    """Largest shares of a file's rows."""

    warning: Share
    critical: Share


class Chances(Strict):
    """Smallest probabilities that a difference is chance; what is less likely is a warning, or critical."""

    warning: Share
    critical: Share

    @model_validator(mode="after")
    def _critical_is_further(self) -> Self:
        if self.critical > self.warning:
            raise ValueError("critical must not be above warning: it is the smaller probability")
        return self

    def level_of(self, chance: float) -> Level:
        """How odd what has this probability is; a probability that is no number is critical."""
        if not chance >= self.critical:
            return "critical"
        return "ok" if chance >= self.warning else "warning"


class ArrivalsSpec(Strict):
    """Files that arrive day by day, named YYYY-MM-DD, and how far one may be from those before it."""

    directory: str = Field(min_length=1)
    recent: Annotated[int, Field(ge=3, description="so many arrivals before it are what is usual")]
    rows: Factors = Field(description="number of rows, against the median")
    seen: Shares = Field(description="rows whose id or text was there before")
    leaked: Shares = Field(description="rows whose id or normalised text is in the test file")
    labels: Chances = Field(description="share of each label (its mean, for scores)")
    lengths: Chances = Field(description="lengths of the texts")
    unknown: Chances = Field(
        description="words that are [UNK] to the base model, or from scratch have letters rare in train"
    )
    champion: Chances = Field(description="a fall of the champion, from what it reaches on the test file")


class Download(Strict):
    """Where a published file is to be had, and its SHA-256 where that is known."""

    url: Annotated[str, Field(pattern=r"^https?://.+")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class HubData(Strict):
    """A data set on the Hugging Face hub, whose columns are those of the published files."""

    dataset: str = Field(min_length=1)
    config: str | None = None
    revision: str | None = None
    train: str = Field(description="name of the split that is the train file")
    test: str = Field(description="name of the split that is the test file")


class SourceSpec(Strict):
    """Where the published files come from, when not from a directory."""

    train: Download
    test: Download
    hub: HubData | None = None


class DataSpec(Strict):
    """The published files and how to read them."""

    format: Literal["tsv", "json"]
    train: str
    test: str
    id: str
    texts: tuple[str, ...] = Field(min_length=1, max_length=2, strict=False)
    label: str = Field(description="column of the label; a dot goes one level down in JSON")
    source: str | None = None
    suite: str
    min_train_rows: Positive
    min_test_rows: Positive
    quarantine: Share = Field(description="largest share of a file's rows that may be set aside")
    validation_share: Share = Field(description="share of the training texts on which epochs are chosen")
    gate_share: Share = Field(description="share of the training texts on which champion and challenger meet")
    overlap: OverlapSpec
    arrivals: ArrivalsSpec | None = None

    @model_validator(mode="after")
    def _texts_are_left(self) -> Self:
        if self.validation_share + self.gate_share >= 1:
            raise ValueError("validation_share and gate_share must add up to less than 1: training needs the rest")
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("texts must name two different columns")
        return self
