"""The API of Hugging Face's Text Embeddings Inference (TEI), and of the hub's inference client.

Source: https://huggingface.github.io/text-embeddings-inference/, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, RootModel, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from pipeline import __version__
from serving.api.compatible.common import Count, TextOrTexts, Whole, check_dimensions
from serving.api.errors import ApiError
from serving.engine.engine import Answer, Engine
from serving.schemas import ErrorType, RecipeName, Request

TRUNCATE = "false: refuse texts that are longer than the model's maximum; otherwise their end is cut off"


#: The hub's client writes it in lower case. Two spellings of a value would break generated clients.
Direction = Annotated[Literal["Right"], BeforeValidator(lambda value: "Right" if value == "right" else value)]


class TeiEmbedRequest(Request):
    """Texts to embed. Values that the model cannot honour are refused."""

    inputs: TextOrTexts
    normalize: Literal[True] | None = None
    truncate: bool | None = Field(default=None, description=TRUNCATE)
    truncation_direction: Direction | None = None
    prompt_name: None = None
    dimensions: Whole | None = None
    encoding_format: Literal["float"] | None = None
    recipe: RecipeName = None


class Parameters(Request):
    """Parameters of the hub's inference client."""

    top_k: Count | None = Field(default=None, description="number of labels, the most probable first")
    function_to_apply: Literal["softmax"] | None = None


def _nested(value: Any) -> Any:
    """Return `inputs` as a list of texts or pairs, each a list."""
    if isinstance(value, str):
        return [[value]]
    return [value] if isinstance(value, list) and value and isinstance(value[0], str) else value


class PredictRequest(Request):
    """Texts or pairs of texts to classify: one text, one text or pair as a list, or a list of such lists."""

    inputs: Annotated[
        list[Annotated[list[str], Field(min_length=1, max_length=2)]],
        BeforeValidator(_nested),
        Field(min_length=1),
        WithJsonSchema({}),
    ]
    raw_scores: Literal[False] | None = None
    truncate: bool | None = Field(default=None, description=TRUNCATE)
    truncation_direction: Direction | None = None
    parameters: Parameters | None = Field(
        default=None, description="if present, one input also gets a list of lists, as the hub's client expects"
    )
    recipe: RecipeName = None
    _is_batch: bool = False

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: Any) -> Self:
        request: Self = handler(value)
        given = value.get("inputs") if isinstance(value, dict) else None
        request._is_batch = isinstance(given, list) and bool(given) and isinstance(given[0], list)
        if len({len(item) for item in request.inputs}) > 1:
            raise PydanticCustomError("mixed", "`inputs` must be all texts or all pairs")
        return request

    @property
    def nests(self) -> bool:
        """Whether the response is a list of lists, one per input, instead of the single input's list."""
        return self._is_batch or self.parameters is not None


class Prediction(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class PredictResponse(RootModel[list[Prediction] | list[list[Prediction]]]):
    """All labels of one input, the most probable first; for several inputs, one such list per input."""


class VectorList(RootModel[list[list[float]]]):
    """One unit vector per text, in the order of the request."""


class Info(BaseModel):
    """The live releases, in the form that clients of TEI read."""

    model_id: str = Field(description="recipe of the release; if there are several, separated by commas")
    model_sha: str | None = Field(description="id of the release")
    model_dtype: str
    model_type: dict[str, dict[str, Any]] = Field(description="`embedding` or `classifier`, with its properties")
    max_input_length: int
    max_client_batch_size: int
    version: str


def vectors(request: TeiEmbedRequest, answer: Answer) -> VectorList:
    """Return the response to `request`. Raises ApiError if the model cannot honour it."""
    check_dimensions(request.dimensions, answer.values)
    check_truncation(request.truncate, answer)
    return VectorList(answer.values.tolist())


def predictions(request: PredictRequest, engine: Engine, answer: Answer) -> PredictResponse:
    """Return the response to `request`. Raises ApiError if it forbids truncation and a text was too long."""
    check_truncation(request.truncate, answer)
    count = request.parameters.top_k if request.parameters else None
    labels = engine.card.labels
    found = [
        [
            Prediction(label=labels[number], score=row[number])
            for number in sorted(range(len(row)), key=lambda n: -row[n])
        ]
        for row in answer.values.tolist()
    ]
    ranked = [item[:count] for item in found]
    return PredictResponse(ranked if request.nests else ranked[0])


def check_truncation(truncate: bool | None, answer: Answer) -> None:
    """Raise ApiError if a request forbids truncation and one of its texts was too long."""
    if truncate is False and answer.truncated.any():
        index = int(answer.truncated.argmax())
        text = "the text is longer than the model's maximum; shorten it, or send `truncate`: true"
        raise ApiError(ErrorType.TOO_LARGE, text, index)


def info(live: Mapping[str, Engine], inputs: int) -> Info:
    """Return the description of the live releases; `inputs` is the maximum per request.

    Raises ApiError UNAVAILABLE if there are none.
    """
    if not live:
        raise ApiError(ErrorType.UNAVAILABLE, "no release is deployed yet; deploy one, then try again")
    engines = list(live.values())
    return Info(
        model_id=",".join(live),
        model_sha=engines[0].card.id if len(engines) == 1 else None,
        model_dtype=engines[0].variant.precision,
        model_type={key: value for engine in engines for key, value in _type_of(engine).items()},
        max_input_length=min(engine.card.max_length for engine in engines),
        max_client_batch_size=inputs,
        version=__version__,
    )


def _type_of(engine: Engine) -> dict[str, dict[str, Any]]:
    if engine.has_vectors:
        return {"embedding": {}}
    labels = engine.card.labels
    if not labels:
        return {}
    return {
        "classifier": {
            "id2label": {str(number): name for number, name in enumerate(labels)},
            "label2id": {name: number for number, name in enumerate(labels)},
        }
    }
