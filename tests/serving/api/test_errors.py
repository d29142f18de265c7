"""Errors: messages, and the index of the invalid part of a body."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ConfigDict

from serving.api.errors import ApiError, parse, unexpected
from serving.schemas import ErrorType


class Asked(BaseModel):
    """A body like the service's: strict, without additional keys."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pairs: list[list[str]]
    recipe: str | None = None


class Others(BaseModel):
    """Another body of the same route; its first field tells it apart."""

    model_config = ConfigDict(extra="forbid", strict=True)

    texts: list[str]
    recipe: str | None = None


def refusal(body: bytes | str, *others: type[Asked | Others]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(Asked, body.encode() if isinstance(body, str) else body, others)
    return caught.value


@pytest.mark.parametrize("kind", ErrorType)
def test_error_is_answered_in_the_one_shape(kind: ErrorType) -> None:
    answer = ApiError(kind, "그것은 'x'", 2, {"Retry-After": "7"}).response()
    assert (answer.status_code, answer.headers["content-type"]) == (kind.status, "application/json")
    assert answer.headers["retry-after"] == "7"
    # Compact JSON with unescaped Korean.
    assert bytes(answer.body).decode() == f'{{"error":{{"type":"{kind.value}","message":"그것은 \'x\'","index":2}}}}'


def test_error_about_no_input_has_no_index() -> None:
    error = ApiError(ErrorType.MALFORMED, "no")
    assert (error.index, error.headers, str(error)) == (None, {}, "no")
    assert json.loads(bytes(error.response().body))["error"] == {"type": "malformed", "message": "no", "index": None}


def test_error_keeps_headers_of_its_own() -> None:
    given = {"Connection": "close"}
    error = ApiError(ErrorType.TOO_LARGE, "", headers=given)
    given.clear()
    assert error.headers == {"Connection": "close"}


@pytest.mark.parametrize(("length", "told"), [(499, 499), (500, 500), (501, 500), (60_000, 500)])
def test_message_is_cut_at_500_characters(length: int, told: int) -> None:
    body = ApiError(ErrorType.MALFORMED, "가" * length).response().body
    assert json.loads(bytes(body))["error"]["message"] == "가" * told


def test_unexpected_error_hides_its_details() -> None:
    error = unexpected()
    assert error.kind is ErrorType.INTERNAL
    assert str(error) == "an unexpected error; the service's log contains it under this request's id"


def test_body_that_fits_is_read() -> None:
    assert parse(Asked, '{"pairs": [["가", "b"]], "recipe": "x"}'.encode()) == Asked(pairs=[["가", "b"]], recipe="x")
    assert parse(Asked, b'{"pairs": []}').recipe is None


def test_body_is_parsed_by_its_first_field() -> None:
    both: list[type[Asked | Others]] = [Others]
    assert parse(Asked, b'{"recipe": "x", "texts": ["a"]}', both) == Others(texts=["a"], recipe="x")
    assert parse(Asked, b'{"pairs": [], "recipe": "x"}', both) == Asked(pairs=[], recipe="x")
    assert str(refusal('{"recipe": "x"}', Others)) == "pairs: Field required"
    assert str(refusal('{"pairs": [], "texts": []}', Others)) == "pairs: unknown key; allowed: texts, recipe"
    assert str(refusal('["texts"]', Others)) == "Input should be a valid dictionary or instance of Asked"


@pytest.mark.parametrize("body", [b"", b"{", b"hello", b'{"pairs": [NaN]}', b'{"pairs": [-Infinity]}', b'"\xff"'])
def test_body_that_is_no_json_is_malformed(body: bytes) -> None:
    error = refusal(body)
    assert (error.kind, error.index) == (ErrorType.MALFORMED, None)
    assert str(error).startswith("the body is not JSON: ")
    assert len(str(error)) > len("the body is not JSON: ")
    assert "byte order mark" not in str(error)


def test_byte_order_mark_is_named() -> None:
    assert str(refusal(b'\xef\xbb\xbf{"pairs": []}')).endswith(
        "it begins with a byte order mark, so send it without one"
    )


@pytest.mark.parametrize(
    ("body", "message", "index"),
    [
        ("{}", "pairs: Field required", None),
        ('["a"]', "Input should be a valid dictionary or instance of Asked", None),
        ("7", "Input should be a valid dictionary or instance of Asked", None),
        (json.dumps([0] * 17), "Input should be a valid dictionary or instance of Asked", None),
        ('{"pairs": 1}', "pairs: Input should be a valid list", None),
        ('{"pairs": [["a", "b"], 1]}', "pairs.1: Input should be a valid list", 1),
        ('{"pairs": [["a"], ["a", 1]]}', "pairs.1.1: Input should be a valid string", 1),
        ('{"pairs": [[1, 2], ["a", 3]]}', "pairs.0.0: Input should be a valid string (and 2 more)", 0),
        ('{"pairs": [[1, 2]]}', "pairs.0.0: Input should be a valid string (and 1 more)", 0),
        ('{"pairs": [], "recipe": 7}', "recipe: Input should be a valid string", None),
        ('{"pairs": [], "x": 1}', "x: unknown key; allowed: pairs, recipe", None),
        ('{"x": 1, "y": 2}', "pairs: Field required (and 2 more)", None),
    ],
)
def test_invalid_body_reports_its_first_fault(body: str, message: str, index: int | None) -> None:
    error = refusal(body)
    assert (error.kind, str(error), error.index) == (ErrorType.INVALID_REQUEST, message, index)


@pytest.mark.parametrize("count", [15, 16, 17, 1000])
def test_body_with_many_keys_reports_only_their_number(count: int) -> None:
    error = refusal(json.dumps({f"k{number}": 1 for number in range(count)}))
    assert error.kind is ErrorType.INVALID_REQUEST
    if count > 16:
        assert str(error) == f"the body has {count} keys; allowed: pairs, recipe"
    else:
        assert str(error) == f"pairs: Field required (and {count} more)"
