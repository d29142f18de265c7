"""The data section of a recipe: the files, their format, and the bounds of the data gate."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.recipes.strict_model import Strict

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Level = Literal["ok", "warning", "critical"]
#: Format of a file by its suffix.
SUFFIXES = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
#: Fields of `ArrivalsSpec` with p-values and an effect size.
DRIFTS = ("labels", "lengths", "unknown", "champion")


class OverlapSpec(Strict):
    """Maximum shares of rows whose normalised text also occurs elsewhere. A larger share stops the run."""

    test_in_train: Share = Field(default=0.1, description="share of test rows whose text is in train")
    two_labels: Share = Field(default=0.05, description="share of a file's rows whose text also has another label")
    duplicates: Share = Field(default=0.2, description="share of a file's rows that repeat an earlier text")


class Largest(Strict):
    """Two upper bounds of a figure: above the first it is a warning, above the second it is critical."""

    warning: float = Field(description="bound above which it is a warning")
    critical: float = Field(description="bound above which it is critical")

    @model_validator(mode="after")
    def _critical_is_further(self) -> Self:
        if self.critical < self.warning:
            raise ValueError("critical must not be below warning")
        return self


class Factors(Largest):
    """Maximum factors by which a number may be above or below the usual one."""

    warning: Annotated[float, Field(gt=1, description="factor above which it is a warning")]
    critical: Annotated[float, Field(gt=1, description="factor above which it is critical")]

    def level_of(self, factor: float) -> Level:
        """Return the level of `factor`: ok, warning or critical."""
        return "critical" if factor > self.critical else "warning" if factor > self.warning else "ok"


class Shares(Largest):
    """Maximum true shares of rows; `pipeline.bounds.most_of` says how many rows of a file they allow."""

    warning: Share = Field(description="share above which it is a warning")
    critical: Share = Field(description="share above which it is critical")


class Chances(Strict):
    """p-values of a difference below which it is a warning, or critical; critical also needs an effect size."""

    warning: Share = Field(description="p-value below which it is a warning")
    critical: Share = Field(description="p-value below which it is critical")
    effect: Share = Field(
        description="smallest effect size that is critical; a smaller one is a warning, however many rows show it"
    )

    @model_validator(mode="after")
    def _critical_is_further(self) -> Self:
        if self.critical > self.warning:
            raise ValueError("critical must not be above warning: it is the smaller probability")
        return self

    def level_of(self, chance: float, effect: float) -> Level:
        """Return the level of a difference with p-value `chance`: ok, warning or critical. NaN exceeds any bound."""
        if not chance >= self.critical and not effect < self.effect:
            return "critical"
        return "ok" if chance >= self.warning else "warning"


class ArrivalsSpec(Strict):
    """Daily arrivals: files named YYYY-MM-DD, and how much a day may differ from earlier days."""

    directory: str = Field(min_length=1, description="directory of the daily files, below the data directory")
    recent: Annotated[int, Field(ge=3, description="number of earlier arrivals to compare with")]
    rows: Factors = Field(description="number of rows, compared with the median")
    seen: Shares = Field(description="rows whose id or text has occurred before")
    leaked: Shares = Field(description="rows whose id or normalised text is in the test file")
    labels: Chances = Field(
        description="share of each label, or the mean score; effect: change of a share, or of the mean per score range"
    )
    lengths: Chances = Field(
        description="lengths of the texts; effect: largest difference of their distribution functions"
    )
    unknown: Chances = Field(
        description="words that are [UNK] for the base model or, from scratch, have letters that are rare in train; "
        "effect: Cliff's delta of the rows' shares of such words"
    )
    champion: Chances = Field(
        description="fall of the champion's metric, compared with the test file; effect: fall of the accuracy, or "
        "Cliff's delta of the errors"
    )


class Download(Strict):
    """URL of a published file (http, https, s3, or another scheme that fsspec supports), and its SHA-256 if known."""

    url: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://.+", description="URL of the file")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of the file; another content is refused"
    )


class HubData(Strict):
    """A data set on the Hugging Face hub. It has the same columns as the published files."""

    dataset: str = Field(min_length=1, description="id of the data set")
    config: str | None = Field(default=None, description="configuration of the data set")
    revision: str | None = Field(default=None, description="revision: a commit, a branch or a tag")
    train: str = Field(description="split to use as the train file")
    test: str | None = Field(default=None, description="split to use as the test file")


class SourceSpec(Strict):
    """Sources of the published files, if they do not come from a directory: URLs, a data set on the hub, or both."""

    train: Download | None = Field(default=None, description="train file, for `download`")
    test: Download | None = Field(default=None, description="test file, for `download`")
    hub: HubData | None = Field(default=None, description="data set, for `hub`")


class DataSpec(Strict):
    """The published files and their format."""

    later = frozenset({"test_share", "delimiter", "encoding"})
    remarks = frozenset({"license"})

    format: Literal["tsv", "csv", "json", "jsonl", "parquet"] = Field(
        description="format of all files. Default: by the suffix of `train`"
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = Field(
        default=",", description="character between the cells of a CSV"
    )
    encoding: Literal["utf-8", "utf-8-sig", "utf-16", "cp949"] = Field(
        default="utf-8", description="encoding of text files; utf-8-sig is UTF-8 with a byte order mark"
    )
    train: str = Field(min_length=1, description="a file below the data directory, or a directory of files")
    test: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="likewise. Default: `test_share` of the texts in `train`"
    )
    test_share: Share = Field(default=0.2, description="share of the texts to test on if there is no `test`")
    id: str | None = Field(default=None, description="column of unique ids. Default: the file's name and the row")
    texts: tuple[str, ...] = Field(
        min_length=1, max_length=2, strict=False, description="column of the text; two columns for pairs"
    )
    label: str = Field(description="column of the label; a dot separates nested JSON keys")
    source: str | None = Field(default=None, description="column with the source of a row, for slices and suites")
    license: str | None = Field(
        default=None, description="licence of the data, for the card of a published model; such as cc-by-sa-4.0"
    )
    suite: str | None = Field(
        default=None, description="name of the expectation suite. Default: rules that fit any texts and labels"
    )
    min_train_rows: Positive = Field(default=100, description="minimum rows of the train file")
    min_test_rows: Positive = Field(default=30, description="minimum rows of the test file")
    quarantine: Share = Field(default=0.01, description="maximum true share of rows that may be quarantined")
    validation_share: Share = Field(
        default=0.1, description="share of the training texts used to select the best epoch"
    )
    gate_share: Share = Field(
        default=0.1, description="share of the training texts used to compare champion and challenger"
    )
    overlap: OverlapSpec = Field(default=OverlapSpec(), description="bounds on rows that occur elsewhere, too")
    arrivals: ArrivalsSpec | None = Field(default=None, description="daily files, if the recipe has any")

    @model_validator(mode="before")
    @classmethod
    def _format_of_suffix(cls, fields: Any) -> Any:
        """Set a missing format by the suffix of the train file."""
        if isinstance(fields, dict) and "format" not in fields and isinstance(fields.get("train"), str):
            found = SUFFIXES.get(PurePath(fields["train"]).suffix.lower())
            return fields | ({"format": found} if found else {})
        return fields

    @property
    def files(self) -> tuple[str, ...]:
        """Return `train`, and `test` if there is one."""
        return (self.train, self.test) if self.test else (self.train,)

    @model_validator(mode="after")
    def _texts_are_left(self) -> Self:
        held_out = self.validation_share + self.gate_share + (0 if self.test else self.test_share)
        if held_out >= 1:
            shares = "validation_share and gate_share" + ("" if self.test else " and test_share")
            raise ValueError(f"{shares} must add up to less than 1: training needs the rest")
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("texts must name two different columns")
        return self
