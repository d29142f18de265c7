"""Splits: by the text alone, near copies together, and test rows of files without a test file."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import strategies as st

from pipeline.data.formats import Broken, Reading
from pipeline.data.input_files import InputFile, Part
from pipeline.data.overlap import near_key
from pipeline.data.reading import SPLITS
from pipeline.data.splits import TRAIN_SPLITS, gate_places, hold_out, place_of, split_of, split_rows
from pipeline.errors import DataError
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from tests.support.properties import given, settings


@cache
def recipe_of(name: str, **data: Any) -> Recipe:
    """Return recipe `name` with changed keys of its table `data`."""
    return load_recipe(name, "embedded", sample=True, overrides={f"data.{key}": value for key, value in data.items()})


REVIEWS = recipe_of("nsmc")
PAIRS = recipe_of("klue-sts")


def test_equal_texts_fall_on_one_side() -> None:
    for number in range(200):
        text = f"재미있는 영화 {number}"
        side = split_of((text,), REVIEWS.data)
        assert split_of((f"  {text}\n",), REVIEWS.data) == side
        assert split_of((unicodedata.normalize("NFD", text),), REVIEWS.data) == side


def test_a_pair_falls_where_its_mirror_falls() -> None:
    sides = set()
    for number in range(200):
        pair = (f"오늘은 비가 온다 {number}", f"비가 내린다 {number}")
        sides.add(split_of(pair, PAIRS.data))
        assert split_of(pair[::-1], PAIRS.data) == split_of(pair, PAIRS.data)
    assert sides == {"train", "validation", "gate"}


def test_the_parts_of_a_pair_are_kept_apart() -> None:
    joined = {
        split_of((f"가{number}", "나"), PAIRS.data) == split_of((f"가{number}나", ""), PAIRS.data)
        for number in range(99)
    }
    assert joined == {True, False}


def test_shares_are_about_those_of_the_recipe() -> None:
    rows = 5000
    sides = [split_of((f"리뷰 {number}",), REVIEWS.data) for number in range(rows)]
    for side, share in (("gate", REVIEWS.data.gate_share), ("validation", REVIEWS.data.validation_share)):
        deviation = (share * (1 - share) / rows) ** 0.5
        assert sides.count(side) / rows == pytest.approx(share, abs=4 * deviation)


#: A text and near copies of it, with other white space or repeated letters.
COPIES = st.text("가나다 !ㅋ", min_size=1, max_size=6)


def sides_of(texts: list[str]) -> dict[str, str]:
    """Return the side of each text in a file of these texts and of some that are certain to be on each side."""
    sides = split_rows(REVIEWS, with_each_side(texts))
    return {text: side for side, part in sides.items() for text in part["text"]}


def with_each_side(texts: list[str]) -> pd.DataFrame:
    """Return rows of these texts and of others, which fill every side of a split."""
    return pd.DataFrame({"text": [*(f"확실한 글 {number}" for number in range(200)), *texts]})


@settings(max_examples=40)
@given(st.lists(COPIES, min_size=2, max_size=40))
def test_near_copies_are_on_the_side_that_uses_most(texts: list[str]) -> None:
    found = sides_of(texts)
    for text in texts:
        copies = [other for other in texts if near_key((other,)) == near_key((text,))]
        own = {split_of((other,), REVIEWS.data) for other in copies}
        assert found[text] == next(side for side in TRAIN_SPLITS if side in own)


@settings(max_examples=40)
@given(st.lists(COPIES, min_size=1, max_size=20), st.lists(COPIES, max_size=20))
def test_held_out_rows_were_held_out_from_any_part_of_the_data(texts: list[str], later: list[str]) -> None:
    before, after = sides_of(texts), sides_of(texts + later)
    assert {text for text in texts if after[text] == "gate"} <= {text for text in texts if before[text] == "gate"}


@settings(max_examples=40)
@given(st.lists(COPIES, min_size=1, max_size=20), st.lists(COPIES, max_size=20), st.sampled_from([0.03, 0.1, 0.3]))
def test_held_out_gate_rows_are_gate_rows_of_every_such_training(
    texts: list[str], later: list[str], share: float
) -> None:
    # Today's share is 0.3. An earlier model had another share and knew a part of today's rows.
    today, then = (recipe_of("nsmc", gate_share=gate) for gate in (0.3, share))
    gate = split_rows(today, with_each_side(texts + later))["gate"]
    expected = set(split_rows(then, with_each_side(texts))["gate"]["text"]) & set(texts)
    counted = set(gate["text"][gate_places(today, gate) < share])
    assert counted & set(texts) <= expected
    if not later:
        assert counted & set(texts) == expected & set(gate["text"])


def test_near_copies_are_never_on_two_sides() -> None:
    # Otherwise the tests above would hold of nothing: with other white space, a text has another place.
    pairs = [(f"재미있는 영화 {number}", f"재미있는영화 {number}") for number in range(200)]
    apart = [pair for pair in pairs if len({split_of((text,), REVIEWS.data) for text in pair}) == 2]
    assert len(apart) > 20
    found = sides_of([text for pair in apart for text in pair])
    assert all(found[left] == found[right] for left, right in apart)


def test_larger_gate_share_keeps_all_gate_rows() -> None:
    larger = recipe_of("nsmc", gate_share=0.3)
    for number in range(300):
        if split_of((f"리뷰 {number}",), REVIEWS.data) == "gate":
            assert split_of((f"리뷰 {number}",), larger.data) == "gate"


@pytest.mark.parametrize(
    ("side", "advice"), [("gate", "raise data.gate_share"), ("train", "lower data.validation_share")]
)
def test_empty_split_error_says_what_to_do(side: str, advice: str) -> None:
    texts = [f"리뷰 {number}" for number in range(200)]
    rows = pd.DataFrame({"text": [text for text in texts if split_of((text,), REVIEWS.data) != side]})
    with pytest.raises(DataError, match=rf"the {side} split has no rows; {advice}"):
        split_rows(REVIEWS, rows)


def test_place_is_part_of_what_earlier_releases_held_out() -> None:
    # Another hash would move every row, so that each gate has rows on which the champion trained.
    assert place_of(("재미있는 영화",)) == pytest.approx(0.33141783997853586, abs=1e-15)
    assert place_of(("비가 온다.", "비가 내린다.")) == pytest.approx(0.818906661055862, abs=1e-15)


@pytest.mark.parametrize(
    ("place", "side"),
    [(0.0, "gate"), (0.1249, "gate"), (0.125, "validation"), (0.3749, "validation"), (0.375, "train"), (1.0, "train")],
)
def test_place_at_the_end_of_a_share_is_outside(place: float, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.splits.place_of", lambda _: place)
    # Powers of two, whose sums are exact.
    assert split_of(("글",), recipe_of("nsmc", gate_share=0.125, validation_share=0.25).data) == side


def table(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"row": range(len(texts)), "text": texts})


def file_of(name: str, texts: list[str], broken: int = 0) -> Part:
    """Return a part with these texts, and broken rows."""
    rows = [Broken(row=number, rule="it can be read", text="") for number in range(broken)]
    return Part(InputFile(name, Path(name), b""), Reading(table(texts), rows))


def held_out(recipe: Recipe, *parts: Part) -> tuple[list[str], list[str]]:
    """Return the train and test texts of files without a test file."""
    splits = hold_out(recipe, parts)
    train, test = (pd.concat([part.reading.rows for part in splits[split]]) for split in SPLITS)
    return train["text"].tolist(), test["text"].tolist()


def test_texts_of_the_last_places_are_test_rows() -> None:
    recipe = recipe_of("nsmc", test_share=0.3)
    # 44 and 444 would be near copies.
    texts = [f"리뷰 {'-'.join(str(number))}" for number in range(1000)]
    train, test = held_out(recipe, file_of("one", texts[:400]), file_of("two", texts[400:]))
    assert test == [text for text in texts if place_of((text,)) >= 1 - recipe.data.test_share]
    assert train == [text for text in texts if text not in test]
    # Four standard deviations of a share of 1,000 rows.
    assert len(test) / 1000 == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1000) ** 0.5)


def test_place_at_the_beginning_of_the_test_share_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.splits.place_of", lambda texts: {"안": 0.75, "밖": 0.7499}[texts[0]])
    assert held_out(recipe_of("nsmc", test_share=0.25), file_of("one", ["밖", "안"])) == (["밖"], ["안"])


def test_text_with_a_near_copy_in_train_is_no_test_row() -> None:
    recipe = recipe_of("nsmc", test_share=0.3)
    pairs = [(f"재미있는 영화 {number}", f"재미있는영화 {number}") for number in range(300)]
    places = {text: place_of((text,)) >= 0.7 for pair in pairs for text in pair}
    apart = [pair for pair in pairs if places[pair[0]] != places[pair[1]]]
    both = [pair for pair in pairs if places[pair[0]] and places[pair[1]]]
    assert min(len(apart), len(both)) > 10
    # Also if the copies are in different files.
    one, two = zip(*apart, *both, strict=True)
    train, test = held_out(recipe, file_of("one", list(one)), file_of("two", list(two)))
    assert set(test) == {text for pair in both for text in pair}
    assert set(train) == {text for pair in apart for text in pair}


def test_parts_keep_their_files_and_broken_rows_stay_in_train() -> None:
    recipe = recipe_of("nsmc", test_share=0.3)
    parts = [file_of("one", [f"하나 {n}" for n in range(50)], broken=2), file_of("two", [f"둘 {n}" for n in range(70)])]
    splits = hold_out(recipe, parts)
    assert [part.file.name for part in splits["train"]] == ["one", "two"]
    assert [part.file.name for part in splits["test"]] == ["one (test rows)", "two (test rows)"]
    assert [len(part.reading.broken) for split in SPLITS for part in splits[split]] == [2, 0, 0, 0]
    for number, part in enumerate(parts):
        halves = [splits[split][number].reading.rows for split in SPLITS]
        assert sorted(row for half in halves for row in half["row"]) == part.reading.rows["row"].tolist()
        assert all(half.columns.tolist() == ["row", "text"] for half in halves)
        assert all(half.index.tolist() == list(range(len(half))) for half in halves)
        assert all(half["text"].str.startswith(("하나", "둘")[number]).all() for half in halves)


def test_row_without_a_text_is_held_out_like_an_empty_one() -> None:
    missing = file_of("one", ["재미있는 영화", ""])
    missing.reading.rows.loc[1, "text"] = None
    assert place_of(("",)) >= 0.7 > place_of(("재미있는 영화",))
    train, test = held_out(recipe_of("nsmc", test_share=0.3), missing)
    assert (train, pd.isna(test[0])) == (["재미있는 영화"], True)


def test_gate_place_is_the_largest_of_its_near_copies() -> None:
    texts = ["재미있는 영화", "재미있는영화", "다른 글"]
    places = [place_of((text,)) for text in texts]
    found = gate_places(REVIEWS, table(texts)).tolist()
    assert found == [max(places[:2]), max(places[:2]), places[2]]


def test_rows_of_a_split_keep_their_order_and_are_numbered_anew() -> None:
    rows = split_rows(REVIEWS, table([f"리뷰 {number}" for number in range(200)]))["validation"]
    assert rows.columns.tolist() == ["row", "text"]
    assert rows.index.tolist() == list(range(len(rows)))
    assert rows["row"].tolist() == sorted(rows["row"])


def test_no_rows_are_no_rows() -> None:
    train, test = held_out(recipe_of("nsmc"), file_of("one", []))
    assert (train, test) == ([], [])
    with pytest.raises(DataError, match="the train split has no rows"):
        split_rows(REVIEWS, table([]))
    places = gate_places(REVIEWS, table([]))
    assert (places.shape, places.dtype) == ((0,), "float64")
