"""The expectation suite of a recipe that names none: rules that fit any texts and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Longest text, in characters. A longer one is a file whose line ends were lost.
LONGEST = 10_000
#: Words for the text columns in descriptions.
NAMES = {1: ("text",), 2: ("first text", "second text")}

Rule = dict[str, Any]


def standard_suite(name: str, texts: Sequence[str], labels: int) -> dict[str, Any]:
    """Return the suite `name` as a JSON document of Great Expectations.

    `texts` are the text columns (`text`, `text_pair`), `labels` is the number of classes; 0 for scores.
    """
    named = zip(texts, NAMES[len(texts)], strict=True)
    rules = [*_row_rules(), *(rule for column, words in named for rule in text_rules(column, words))]
    return {
        "name": name,
        "notes": "Rules run on the train file and on the test file in turn.",
        "expectations": [*rules, *_label_rules(labels), *_repetition_rules(texts)],
    }


def rule(kind: str, severity: str, description: str, notes: str, **kwargs: Any) -> Rule:
    """Return one expectation; `kind` is its type without `expect_`."""
    return {
        "type": f"expect_{kind}",
        "kwargs": kwargs,
        "severity": severity,
        "description": description,
        "notes": notes,
    }


def _row_rules() -> list[Rule]:
    return [
        rule(
            "table_row_count_to_be_between",
            "critical",
            "there are at least as many rows as the recipe asks for",
            "A file cut short trains a model that looks finished.",
            min_value={"$PARAMETER": "min_rows"},
        ),
        rule(
            "column_values_to_be_unique",
            "critical",
            "every id occurs once",
            "A repeated id means that a file was joined to itself.",
            column="id",
        ),
        rule(
            "column_values_to_be_in_set",
            "critical",
            "no train row has an id of the test file",
            "A test row that was trained on measures memory. The train row is set aside.",
            column="id_in_test",
            value_set=[False],
        ),
    ]


def text_rules(column: str, name: str) -> list[Rule]:
    """Return the rules for one text column."""
    return [
        rule(
            "column_values_to_match_regex",
            "critical",
            f"no {name} is blank",
            "A model learns nothing from a blank text.",
            column=column,
            regex=r"\S",
        ),
        rule(
            "column_value_lengths_to_be_between",
            "critical",
            f"a {name} has at most {LONGEST:,} characters",
            "A longer one is not a text but a file whose line ends or quotes were lost.",
            column=column,
            max_value=LONGEST,
        ),
        rule(
            "column_values_to_not_match_regex",
            "warning",
            f"no {name} contains the replacement character (U+FFFD)",
            "A program could not decode these rows and continued.",
            column=column,
            regex="\ufffd",
        ),
    ]


def _label_rules(labels: int) -> list[Rule]:
    if labels:
        return [
            rule(
                "column_values_to_be_in_set",
                "critical",
                "every label is one of the recipe's",
                "An unknown label cannot be learned.",
                column="label",
                value_set={"$PARAMETER": "labels"},
            ),
            rule(
                "column_distinct_values_to_contain_set",
                "critical",
                "every label of the recipe occurs",
                "A model cannot learn, and a test cannot measure, a label that never occurs.",
                column="label_number",
                value_set=list(range(labels)),
            ),
        ]
    return [
        rule(
            "column_values_to_be_between",
            "critical",
            "every score is in the recipe's range",
            "A score out of range is of another scale.",
            column="label_number",
            min_value={"$PARAMETER": "score_low"},
            max_value={"$PARAMETER": "score_high"},
        )
    ]


def _repetition_rules(texts: Sequence[str]) -> list[Rule]:
    kind, where = (
        ("column_values_to_be_unique", {"column": texts[0]})
        if len(texts) == 1
        else ("compound_columns_to_be_unique", {"column_list": list(texts)})
    )
    return [
        rule(
            kind,
            "warning",
            "at most 1 row in 10 repeats a text of its file",
            "More means that rows were copied.",
            mostly=0.9,
            **where,
        ),
        rule(
            "column_values_to_be_in_set",
            "warning",
            "at most 1 row in 50 has a text that also has another label",
            "More means that labels were shuffled, or that people disagree about them.",
            column="contradicts",
            value_set=[False],
            mostly=0.98,
        ),
        rule(
            "column_values_to_be_in_set",
            "warning",
            "at most 1 test row in 20 has a text that is also in the train file",
            "Such rows measure memory.",
            column="in_train",
            value_set=[False],
            mostly=0.95,
        ),
    ]
