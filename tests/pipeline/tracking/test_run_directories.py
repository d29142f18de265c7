"""Recorded runs on the disk: Saebyeok's files and locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.tracking.run_directories import RunDirectory, Story, run_directories

STORY = Story(stage="train", store="s3://b/p", texts=True, uses=("validate/a/b/c",), made="release/a/b/d", crowns=True)


def make_run(home: Path, name: str, content: bytes = b"12345678") -> RunDirectory:
    run = RunDirectory(home / "wandb" / "wandb" / name)
    run.path.mkdir(parents=True)
    run.file.write_bytes(content)
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path, "offline-run-20260101_030000-ab12cd34")


def test_a_run_has_its_names_from_its_directory(run: RunDirectory) -> None:
    assert (run.name, run.id) == ("offline-run-20260101_030000-ab12cd34", "ab12cd34")
    assert run.file.name == "run-ab12cd34.wandb"


@pytest.mark.parametrize(("size", "empty"), [(0, True), (7, True), (8, False)])
def test_a_file_of_a_header_alone_is_empty(tmp_path: Path, size: int, empty: bool) -> None:
    assert make_run(tmp_path, "offline-run-20260101_030000-x", b"x" * size).empty is empty


def test_a_run_without_a_file_is_empty(run: RunDirectory) -> None:
    run.file.unlink()
    assert run.empty


def test_a_story_is_read_as_it_was_written(run: RunDirectory) -> None:
    assert run.story is None
    run.write(STORY)
    assert run.story == STORY


@pytest.mark.parametrize("content", ["", "{", "{}", '{"stage": "train", "store": "s", "texts": false, "other": 1}'])
def test_a_damaged_story_is_none(run: RunDirectory, content: str) -> None:
    (run.path / "story.json").write_text(content, encoding="utf-8")
    assert run.story is None


@pytest.mark.parametrize(
    ("marks", "done"), [([], False), (["uploaded"], False), (["linked"], False), (["uploaded", "linked"], True)]
)
def test_a_run_is_done_with_both_marks(run: RunDirectory, marks: list[str], done: bool) -> None:
    for mark in marks:
        assert not run.has(mark)
        run.mark(mark)
        assert run.has(mark)
    assert run.done is done


def test_held_run_is_locked_until_released(run: RunDirectory) -> None:
    with run.held(), pytest.raises(BlockingIOError), RunDirectory(run.path).held():
        pass
    with RunDirectory(run.path).held():
        pass


def test_runs_are_listed_once_from_the_oldest_on(tmp_path: Path) -> None:
    names = [f"offline-run-2026010{day}_030000-{run}" for day, run in ((3, "a"), (1, "c"), (2, "b"))]
    for name in names:
        make_run(tmp_path, name)
    (tmp_path / "wandb" / "wandb" / names[0] / "run-copy.wandb").touch()
    # Neither an online run of W&B nor a directory without its file.
    make_run(tmp_path, "run-20260101_030000-d")
    (tmp_path / "wandb" / "wandb" / "offline-run-20260104_030000-e").mkdir()
    assert [run.name for run in run_directories(tmp_path)] == sorted(names)
    assert run_directories(tmp_path / "elsewhere") == []
