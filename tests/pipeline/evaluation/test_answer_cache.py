"""Answers of earlier models are kept by model and row: a model answers only the rows that are new."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BrokenModelError
from pipeline.evaluation.answer_cache import AnswerCache
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.store.artifacts import Artifact, Store
from tests.support.families import made


class Model:
    """A model whose answer depends on the text; it remembers how many rows it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rows: pd.DataFrame) -> Any:
        assert list(rows.index) == list(range(len(rows)))
        assert set(rows.columns) <= {"text", "text_pair"}
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


def test_each_store_and_recipe_has_its_answers(make_job: Callable[..., Job], trained: Artifact, tmp_path: Path) -> None:
    job, model = make_job(load_recipe("nsmc", "embedded")), Model()
    AnswerCache.of(job).answers(trained, table("a"), model)
    (path,) = (job.settings.home / "cache" / "answers").rglob("*.npz")
    assert path.parent == job.settings.home / "cache" / "answers" / job.store.digest / "nsmc"
    other = replace(job, store=Store(str(tmp_path / "other"), tmp_path / "cache"))
    for another in (other, replace(job, recipe=load_recipe("klue-sts", "embedded"))):
        AnswerCache.of(another).answers(trained, table("a"), model)
    assert model.asked == [1, 1, 1]


def test_too_few_answers_are_an_error(tmp_path: Path, trained: Artifact) -> None:
    with pytest.raises(ValueError, match="shorter"):
        AnswerCache(tmp_path / "answers").answers(trained, table("a", "b"), lambda rows: np.zeros((1, 2)))


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


def archive(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize(
    "damage",
    [b"", b"no archive", None, archive(keys=["x", "y"], answers=[[1.0, 0.5]])],
    ids=["empty", "no archive", "cut", "too few answers"],
)
def test_damaged_file_is_written_again(
    tmp_path: Path, trained: Artifact, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    cache, model = AnswerCache(tmp_path / "answers"), Model()
    expected = cache.answers(trained, table("a"), model)
    (path,) = (tmp_path / "answers").glob("*")
    path.write_bytes(path.read_bytes()[:100] if damage is None else damage)
    for _ in range(2):
        assert cache.answers(trained, table("a"), model).tolist() == expected.tolist()
    assert model.asked == [1, 1]
    assert f"{path} is damaged and counts as absent" in caplog.text


def test_models_that_are_not_compared_any_more_are_forgotten(tmp_path: Path, store: Store, trained: Artifact) -> None:
    cache, model = AnswerCache(tmp_path / "answers"), Model()
    for artifact in (trained, made(store, "train")):
        cache.answers(artifact, table("a"), model)
    cache.forget_others([trained])
    cache.answers(trained, table("a"), model)
    assert (model.asked, len(list((tmp_path / "answers").glob("*")))) == ([1, 1], 1)


def test_file_that_another_run_deletes_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda directory, _: [directory / "deleted.npz"])
    AnswerCache(tmp_path).forget_others([])


def test_answers_are_not_flushed_to_disk(tmp_path: Path, trained: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    # Lost answers are computed again.
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    AnswerCache(tmp_path / "answers").answers(trained, table("a"), Model())
    assert flushed == []


def test_broken_model_leaves_nothing(tmp_path: Path, trained: Artifact) -> None:
    def broken(_: pd.DataFrame) -> Any:
        raise BrokenModelError("NaN")

    with pytest.raises(BrokenModelError):
        AnswerCache(tmp_path / "answers").answers(trained, table("a"), broken)
    assert list((tmp_path / "answers").glob("*")) == []
