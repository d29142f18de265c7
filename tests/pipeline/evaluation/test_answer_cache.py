"""Answers of earlier models are kept by model and row: a model answers only the rows that are new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BrokenModelError
from pipeline.evaluation.answer_cache import AnswerCache
from pipeline.store.artifacts import Artifact, Store
from tests.support.families import made


class Model:
    """A model whose answer depends on the text; it remembers how many rows it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rows: pd.DataFrame) -> Any:
        self.asked.append(len(rows))
        return np.array([[len(text), 0.5] for text in rows["text"]])


@pytest.fixture
def trained(store: Store) -> Artifact:
    return made(store, "train")


def table(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"text": texts})


def test_only_new_rows_are_asked(tmp_path: Path, trained: Artifact) -> None:
    model = Model()
    first = AnswerCache(tmp_path / "answers").answers(trained, table("a", "bb", "a"), model)
    assert first.tolist() == [[1.0, 0.5], [2.0, 0.5], [1.0, 0.5]]
    again = AnswerCache(tmp_path / "answers").answers(trained, table("bb", "dddd", "a"), model)
    assert again.tolist() == [[2.0, 0.5], [4.0, 0.5], [1.0, 0.5]]
    AnswerCache(tmp_path / "answers").answers(trained, table("dddd"), model)
    assert model.asked == [3, 1]


def test_each_text_of_a_pair_counts(tmp_path: Path, trained: Artifact) -> None:
    cache, model = AnswerCache(tmp_path / "answers"), Model()
    for pair in ("x", "y"):
        cache.answers(trained, table("a").assign(text_pair=pair), model)
    assert model.asked == [1, 1]


def test_another_model_answers_itself(tmp_path: Path, store: Store, trained: Artifact) -> None:
    cache, model = AnswerCache(tmp_path / "answers"), Model()
    for artifact in (trained, made(store, "train"), trained):
        cache.answers(artifact, table("a"), model)
    assert model.asked == [1, 1]


@pytest.mark.parametrize("damage", [b"", b"no archive", None], ids=["empty", "no archive", "cut"])
def test_damaged_file_is_written_again(tmp_path: Path, trained: Artifact, damage: bytes | None) -> None:
    cache, model = AnswerCache(tmp_path / "answers"), Model()
    expected = cache.answers(trained, table("a"), model)
    (path,) = (tmp_path / "answers").glob("*")
    path.write_bytes(path.read_bytes()[:100] if damage is None else damage)
    for _ in range(2):
        assert cache.answers(trained, table("a"), model).tolist() == expected.tolist()
    assert model.asked == [1, 1]


def test_models_that_are_not_compared_any_more_are_forgotten(tmp_path: Path, store: Store, trained: Artifact) -> None:
    cache, model = AnswerCache(tmp_path / "answers"), Model()
    for artifact in (trained, made(store, "train")):
        cache.answers(artifact, table("a"), model)
    cache.forget_others([trained])
    cache.answers(trained, table("a"), model)
    assert (model.asked, len(list((tmp_path / "answers").glob("*")))) == ([1, 1], 1)


def test_broken_model_leaves_nothing(tmp_path: Path, trained: Artifact) -> None:
    def broken(_: pd.DataFrame) -> Any:
        raise BrokenModelError("NaN")

    with pytest.raises(BrokenModelError):
        AnswerCache(tmp_path / "answers").answers(trained, table("a"), broken)
    assert list((tmp_path / "answers").glob("*")) == []
