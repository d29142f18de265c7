"""Slices: which row is in which part, determined by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.error_analysis import (
    FEWEST_ROWS,
    LAUGHTER,
    MOST_SOURCES,
    NEGATION,
    slice_figures,
)
from pipeline.recipes.loading import load_recipe

REVIEWS = load_recipe("nsmc", "embedded")
PAIRS = load_recipe("klue-sts", "embedded")


def table(texts: list[str], **columns: Any) -> pd.DataFrame:
    rows = {"text": texts, "label": 0, "prediction": 0, "in_train": False} | columns
    return pd.DataFrame(rows)


def parts_of(found: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    return {item["part"]: item for item in found if item["slice"] == name}


@pytest.mark.parametrize(
    "text",
    [
        "안 재밌다",
        "재미가 안 느껴짐",
        "못 보겠다",
        "보지 못했다",
        "지루하지 않다",
        "재미없다",
        "최고는 아니다",
        "보지마세요",
        "안봤다",
        "못봤어요",
        "하나도 안좋다",
        "안재밌어",
        "안웃겨",
        "이해가 안됨",
        "보지 말 것",
        "보지말자",
        "별로",
        "전혀 모름",
    ],
)
def test_a_negation_is_found(text: str) -> None:
    assert NEGATION.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "안녕하세요",
        "동안 재밌었다",
        "눈이 즐겁다",
        "연못이 나온다",
        "미안하다",
        "안경 쓴 배우",
        "무안했다",
        "지말순 감독",
        "못지",
    ],
)
def test_what_only_looks_like_a_negation_is_none(text: str) -> None:
    assert not NEGATION.search(text)


def test_laughter_and_tears() -> None:
    assert LAUGHTER.search("재밌다ㅋㅋ")
    assert LAUGHTER.search("슬프다 ㅠ")
    assert not LAUGHTER.search("크크 유유")


def test_a_figure_is_that_of_its_rows_by_hand() -> None:
    # 40 rows with laughter (30 right), 60 without (57 right).
    texts = ["ㅋㅋ"] * 40 + ["네"] * 60
    wrong = [1] * 10 + [0] * 30 + [1] * 3 + [0] * 57
    parts = parts_of(slice_figures(REVIEWS, table(texts, prediction=wrong)), "ㅋ or ㅠ")
    assert parts["with"]["rows"] == 40
    assert parts["with"]["figure"]["value"] == pytest.approx(0.75)
    assert parts["without"]["figure"]["value"] == pytest.approx(0.95)
    assert parts["with"]["figure"]["low"] < 0.75 < parts["with"]["figure"]["high"]


def test_quarters_by_length_hold_each_row_once() -> None:
    texts = ["가" * length for length in range(1, 101)]
    parts = parts_of(slice_figures(REVIEWS, table(texts)), "length")
    assert list(parts) == ["1 to 25 characters", "26 to 50 characters", "51 to 75 characters", "76 to 100 characters"]
    assert [item["rows"] for item in parts.values()] == [25] * 4


def test_lengths_that_are_all_but_alike_make_fewer_parts() -> None:
    parts = parts_of(slice_figures(REVIEWS, table(["가"] * 90 + ["나나"] * 10)), "length")
    assert {part: item["rows"] for part, item in parts.items()} == {"1 to 1 characters": 90, "2 to 2 characters": 10}


def test_part_with_few_rows_gets_no_figure() -> None:
    rows = FEWEST_ROWS - 1
    parts = parts_of(slice_figures(REVIEWS, table(["안 본다"] * rows + ["본다"] * 60)), "negation")
    assert parts["with"] == {"slice": "negation", "part": "with", "rows": rows, "figure": None}
    assert parts["without"]["figure"] is not None


def test_slice_of_the_whole_file_is_omitted() -> None:
    assert parts_of(slice_figures(REVIEWS, table(["본다"] * 60)), "negation") == {}


def sources_of(*counts: tuple[str | None, int]) -> dict[str, int]:
    """Return the rows of each part by source of a file with these sources and their numbers of rows."""
    sources = [name for name, count in counts for _ in range(count)]
    texts = table(["본다"] * len(sources), source=pd.Series(sources, dtype="str"))
    return {part: item["rows"] for part, item in parts_of(slice_figures(REVIEWS, texts), "source").items()}


def test_each_of_few_sources_is_a_part() -> None:
    few = [(f"s{number:02}", 1 + number) for number in range(MOST_SOURCES - 1)]
    assert sources_of(*few, (None, 3)) == dict(few) | {"none given": 3}


def test_small_ones_of_many_sources_are_one_part() -> None:
    many = [(f"https://example.kr/{number}", 1) for number in range(MOST_SOURCES)]
    assert sources_of(("b", FEWEST_ROWS), ("c", FEWEST_ROWS - 1), *many, ("a", FEWEST_ROWS + 5)) == {
        "a": FEWEST_ROWS + 5,
        "b": FEWEST_ROWS,
        f"{MOST_SOURCES + 1} other sources": FEWEST_ROWS - 1 + MOST_SOURCES,
    }
    # A part of all rows would be the whole file.
    assert sources_of(*many, ("last", 1)) == {}
    large = [(f"s{number:02}", FEWEST_ROWS + number) for number in range(MOST_SOURCES + 2)]
    assert sources_of(*large) == dict(large[2:]) | {"2 other sources": 2 * FEWEST_ROWS + 1}


def test_sources_and_pairs() -> None:
    generator = np.random.default_rng(1)
    labels = generator.uniform(0, 5, 120)
    pairs = table(
        ["비가 온다"] * 120,
        text_pair=["비가 안 온다"] * 40 + ["비가 내린다"] * 80,
        label=labels,
        prediction=labels + generator.normal(0, 1, 120),
        source=["news"] * 50 + ["reviews"] * 70,
    )
    found = slice_figures(PAIRS, pairs)
    assert {part: item["rows"] for part, item in parts_of(found, "source").items()} == {"news": 50, "reviews": 70}
    # A pair has a negation if either text has one; its length is the sum of both.
    assert parts_of(found, "negation")["with"]["rows"] == 40
    assert list(parts_of(found, "length")) == ["11 to 11 characters", "12 to 12 characters"]
