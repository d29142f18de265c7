"""Names of classes, and numbers among them."""

from __future__ import annotations

import json
import unicodedata

import pytest

from pipeline.recipes.kinds.classification import label_values
from pipeline.recipes.kinds.numerals import numeral, spellings
from pipeline.recipes.labels import check_labels


@pytest.mark.parametrize(
    ("name", "number"),
    [("2", 2.0), ("2.0", 2.0), ("-1", -1.0), (".5", 0.5), ("1e2", 100.0)]
    + [(name, None) for name in ("", "two", "1_0", "inf", "nan", "1e999", "2 ", "2점", "٢", "9" * 5000, "0x1")],
)
def test_numeral_is_the_number_of_a_name(name: str, number: float | None) -> None:
    assert numeral(name) == number


def test_spellings_are_those_of_json_writers() -> None:
    for number in (2, 2.0, 0.5, -3, 1e22):
        assert json.dumps(number) in spellings(str(number))
    assert spellings("2.0") == spellings("2") == ("2.0", "2")
    assert spellings("good") == ()
    # Other whole numbers would be read as this one.
    assert spellings("12345678901234567890") == ("1.2345678901234567e+19",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("good", "good"), "must all be different, not good, good"),
        (("2", "2.0"), "must all be different numbers, not 2, 2.0"),
        (("bad", "good "), "'good ' begins or ends with white space"),
        (("bad", ""), "'' is empty"),
        (("bad", "good\u200b"), r"'good\\u200b' has an invisible or full-width character"),
        (("１", "2"), r"'\\uff11' has an invisible or full-width character"),
        (("부정", unicodedata.normalize("NFD", "긍정")), "is decomposed"),
    ],
)
def test_labels_that_could_be_confused_are_refused(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"`labels`.*{message}"):
        check_labels(labels)


def test_korean_and_numeric_labels_are_valid() -> None:
    check_labels(("부정", "중립", "긍정"))
    check_labels(("0.5", "1.0", "1.5"))
    check_labels(())


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (("bad", "good"), {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "bad": 0, "good": 1}),
        (("false", "true"), {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "false": 0, "true": 1}),
        # The number 1 may be the position of `False` or the truth value of `True`.
        (("True", "False"), {"True": 0, "False": 1}),
        (("maybe", "true", "false"), {"maybe": 0, "true": 1, "false": 2}),
        # The number 1 may be the position of the second name or the number in the first.
        (("1점", "2점", "3점"), {"1점": 0, "2점": 1, "3점": 2}),
        (("2.0 stars", "G7", "one"), {"2.0 stars": 0, "G7": 1, "one": 2}),
        (("x0", "covid-19"), {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "x0": 0, "covid-19": 1}),
        (("01", "1e1", "ten"), {"01": 0, "1.0": 0, "1": 0, "1e1": 1, "10.0": 1, "10": 1, "ten": 2}),
    ],
)
def test_spelling_that_may_mean_two_classes_means_none(labels: tuple[str, ...], numbers: dict[str, int]) -> None:
    assert label_values(labels) == numbers
