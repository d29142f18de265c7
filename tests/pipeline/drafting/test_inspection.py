"""A look at a data file: its columns, kind and labels are guessed, and faults are named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.drafting.inspection import Chosen, inspect
from pipeline.errors import DataError, RecipeError
from tests.support.news import WORDS, headlines, write_headlines


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_of_any_writer_is_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    found = inspect(write_headlines(tmp_path / "news.csv", encoding=encoding, delimiter=delimiter), Chosen())
    assert (found.rows, found.texts, found.label, found.id) == (900, ("제목",), "분야", None)
    assert set(found.labels) == set(WORDS)
    assert sum(found.labels.values()) == 900
    assert found.hangul == 1
    known = {"format": "csv"} | ({"encoding": encoding} if encoding != "utf-8" else {})
    assert found.table.settings == known | ({"delimiter": delimiter} if delimiter != "," else {})


def test_pairs_and_their_label_are_guessed(tmp_path: Path) -> None:
    rows = [
        {
            "guid": f"a-{n}",
            "premise": f"{n}번 버스가 온다",
            "hypothesis": f"{n}번 차가 간다",
            "gold_label": "abc"[n % 3],
        }
        for n in range(60)
    ]
    found = inspect(write_rows(tmp_path / "pairs.json", rows), Chosen())
    assert (found.texts, found.label, found.id) == (("premise", "hypothesis"), "gold_label", "guid")
    assert list(found.labels) == ["a", "b", "c"]


def test_fractions_are_scores_and_few_whole_numbers_classes(tmp_path: Path) -> None:
    halves = [{"후기": f"{n}번째 후기입니다", "평점": n % 10 / 2} for n in range(80)]
    found = inspect(write_rows(tmp_path / "a.json", halves), Chosen())
    assert (found.scores, found.score_range, found.labels) == (True, (0.0, 4.5), {})
    stars = [row | {"평점": n % 5} for n, row in enumerate(halves)]
    found = inspect(write_rows(tmp_path / "b.json", stars), Chosen())
    assert (found.scores, list(found.labels)) == (False, ["0", "1", "2", "3", "4"])
    assert inspect(tmp_path / "b.json", Chosen(scores=True)).score_range == (0.0, 4.0)


def test_nested_and_named_columns_are_used(tmp_path: Path) -> None:
    rows = [{"본문": f"{n}번째 글", "요약": f"{n}번째 요약은 더 길다", "labels": {"x": n % 2}} for n in range(60)]
    path = write_rows(tmp_path / "a.json", rows)
    assert inspect(path, Chosen()).label == "labels.x"
    assert inspect(path, Chosen(texts=("본문",))).texts == ("본문",)
    with pytest.raises(RecipeError, match=r"has no column '제목'; it has: 본문, 요약, labels\.x"):
        inspect(path, Chosen(texts=("제목",)))


def test_repetition_is_measured(tmp_path: Path) -> None:
    rows = [{"제목": "같은 제목ㅋㅋㅋ" if n < 20 else f"제목 {n}", "분야": "ab"[n % 2]} for n in range(100)]
    found = inspect(write_rows(tmp_path / "a.json", rows), Chosen())
    assert (round(found.duplicates, 2), round(found.two_labels, 2)) == (0.19, 0.2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xls", "x", r"the suffix \.xls names no format"),
        ("a.csv", "text\nabc\n", "not a CSV with several columns"),
        ("a.json", "[1", "is not JSON"),
        ("a.jsonl", '{"a": 1}\n{"a"\n', "line 2 is not JSON"),
        ("a.parquet", "x", "is not a Parquet file"),
        ("a.csv", "a,b\n", "has no rows"),
        ("a.json", f'[{{"a": {"[" * 100_000}', "is not JSON: maximum recursion"),
        ("a.jsonl", f'{{"a": {"[" * 100_000}', "line 1 is not JSON: maximum recursion"),
        ("a.csv", "\ufeffa,\udcff\n", "is neither UTF-8 nor UTF-16 nor CP949"),
    ],
)
def test_unusable_file_is_a_sentence(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        inspect(tmp_path / name, Chosen())


def test_every_line_of_json_lines_that_validate_reads_is_read(tmp_path: Path) -> None:
    lines = [json.dumps({"글": f"{n}번째\u2028글", "평": n % 2}, ensure_ascii=False) for n in range(59)]
    lines.append(f'{{"글": "글", "평": {"9" * 5000}}}')
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert inspect(tmp_path / "a.jsonl", Chosen()).rows == 60


def test_column_that_cannot_be_guessed_is_asked_for(tmp_path: Path) -> None:
    rows = [{"a": f"글 {n}", "b": f"말 {n}"} for n in range(60)]
    with pytest.raises(RecipeError, match=r"no column looks like a label; name it with --label: a, b"):
        inspect(write_rows(tmp_path / "a.json", rows), Chosen())
    with pytest.raises(RecipeError, match=r"has 5 rows; a model needs at least 50"):
        inspect(write_rows(tmp_path / "a.json", headlines(5)), Chosen())  # type: ignore[arg-type]


class Person:
    """Answers each question with the given choice, and remembers questions and defaults."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(self, question: str, choices: Sequence[str], default: Sequence[str], most: int) -> tuple[str, ...]:
        self.asked.append((question, tuple(choices), tuple(default), most))
        return self.answers.pop(0)


def test_clear_columns_and_kind_are_not_asked_for(tmp_path: Path) -> None:
    person = Person()
    found = inspect(write_headlines(tmp_path / "news.csv"), Chosen(), person)
    assert (found.label, person.asked) == ("분야", [])


def test_columns_and_kind_without_a_clear_guess_are_asked_for(tmp_path: Path) -> None:
    rows = [
        {"본문": f"{n}번째 글", "요약": f"{n}번째 요약은 더 길다", "별점": n % 5, "분류": "가나"[n % 2]}
        for n in range(60)
    ]
    person = Person(("별점",), ("본문", "요약"), ("scores",))
    found = inspect(write_rows(tmp_path / "a.json", rows), Chosen(), person)
    assert (found.label, found.texts, found.score_range) == ("별점", ("본문", "요약"), (0.0, 4.0))
    assert person.asked == [
        ("Which column holds the labels or scores?", ("본문", "요약", "별점", "분류"), ("분류",), 1),
        ("Which column holds the texts (two columns for pairs)?", ("본문", "요약", "분류"), ("요약",), 2),
        ("Are the numbers in '별점' classes, or scores on a scale?", ("classes", "scores"), ("classes",), 1),
    ]
    # On a pipe, the defaults of these questions count.
    found = inspect(tmp_path / "a.json", Chosen())
    assert (found.label, found.texts, found.scores) == ("분류", ("요약",), False)


def test_question_without_a_guess_has_no_default(tmp_path: Path) -> None:
    rows = [{"본문": f"{n}번째 글", "비고": f"{n}번째 비고"} for n in range(60)]
    person = Person(("비고",))
    with pytest.raises(RecipeError, match="no column looks like a label"):
        inspect(write_rows(tmp_path / "a.json", rows), Chosen())
    assert inspect(tmp_path / "a.json", Chosen(), person).label == "비고"
    assert person.asked == [("Which column holds the labels or scores?", ("본문", "비고"), (), 1)]
