"""The declaration of a kind of task: its inputs, route, metrics and the form of its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

Kind = Literal["classification", "regression"]
Inputs = Literal["text", "pair"]
Objective = Literal["cross-encoder", "bi-encoder"]
Route = Literal["/classify", "/similarity", "/score"]
#: Method by which the service compares the texts of a pair.
Method = Literal["cross-encoder", "cosine", "euclidean"]
#: One answer of a model: a probability per label, or one number in the score range.
AnswerForm = Literal["probabilities", "score"]


class AnswerFields(Protocol):
    """The fields of a recipe or a release card that describe its answers."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of the class numbers; empty for scores."""

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest score; None for labels."""

    @property
    def similar_at(self) -> float | None:
        """Lowest score that counts as positive; None for labels."""


@dataclass(frozen=True)
class ReportWords:
    """Words for the answers of a kind in the report."""

    plot: str
    "Title of the plot of the test file."
    plot_content: str
    "Content of the plot, for readers who cannot see it."
    mistakes: str
    "Title of the worst mistakes."
    watched: str
    "The numbers that a behavioural test is about."


class TaskKind(ABC):
    """A kind of task. Recipes and cards name it by `kind`, `inputs` and `objective` (see `registry`).

    The parameter `fields` of the methods is a recipe or a release card.
    """

    kind: ClassVar[Kind]
    inputs: ClassVar[Inputs]
    objective: ClassVar[Objective | None]
    route: ClassVar[Route]
    "Route of the service that answers."
    texts: ClassVar[tuple[str, ...]]
    "Text columns of artifacts."
    reads: ClassVar[str]
    "The inputs in words, as a plural."
    encodings: ClassVar[Mapping[str, tuple[str, ...]]]
    "Columns of token ids, each with the text columns that are encoded together."
    metric_names: ClassVar[Mapping[str, str]]
    "Metrics with their names in sentences; the first one decides."
    answers: ClassVar[AnswerForm]
    label_type: ClassVar[Literal["int64", "float64"]]
    "Type of the label column in artifacts."
    expectations: ClassVar[Mapping[str, frozenset[str]]]
    "Fields that a behavioural test has, by its own kind (`pipeline.recipes.behaviour`)."
    words: ClassVar[ReportWords]
    methods: ClassVar[tuple[Method, ...]] = ()
    "Methods to compare the texts of a pair, the default first."
    has_vectors: ClassVar[bool] = False
    "Whether its model can embed single texts."
    trains_head: ClassVar[bool] = True
    "Whether the model has a head, which can be trained alone."
    augments: ClassVar[bool] = False
    "Whether training can derive more rows from the labelled ones."

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics; the first one decides."""
        return tuple(self.metric_names)

    @property
    def joins_texts(self) -> bool:
        """Whether several texts are encoded together, told apart by token types."""
        return any(len(texts) > 1 for texts in self.encodings.values())

    @abstractmethod
    def check(self, fields: AnswerFields) -> None:
        """Raise ValueError if a recipe lacks fields that this kind needs."""

    @abstractmethod
    def answer_range(self, fields: AnswerFields) -> tuple[float, float]:
        """Return the lowest and the highest number in an answer."""

    @abstractmethod
    def label_rule(self, fields: AnswerFields) -> str:
        """Return the rule for a valid label in a data file, as the end of the sentence "every label is ..."."""

    @abstractmethod
    def label_number(self, fields: AnswerFields, label: str) -> float:
        """Return the class number or score of a label in a data file; NaN if the label is invalid."""

    @abstractmethod
    def is_valid(self, fields: AnswerFields, number: float) -> bool:
        """Return whether the number of a label is in the valid range; NaN is not."""

    @abstractmethod
    def suite_parameters(self, fields: AnswerFields) -> dict[str, Any]:
        """Return values about labels that an expectation suite may refer to, by name."""

    @abstractmethod
    def result(self, fields: AnswerFields, answer: Sequence[float]) -> dict[str, Any]:
        """Return one answer of a model as the fields of a result, as the service returns it."""

    @abstractmethod
    def answer(self, fields: AnswerFields, result: Mapping[str, Any]) -> list[float]:
        """Return the answer in a result: the inverse of `result`."""

    @abstractmethod
    def body(self, inputs: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        """Return the inputs as the field of a request to the service."""
