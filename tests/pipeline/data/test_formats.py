"""File formats: the same rows from each, strict about quotes, encodings and types, and faults with their place."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from pipeline.data.formats import columns_of, parse_content, row_unit
from pipeline.data.reading import parse_file, read_labelled
from pipeline.errors import DataError
from pipeline.recipes.data_schema import DataSpec
from pipeline.recipes.schema import Recipe

ROWS = [
    {"id": "1", "글": "좋다", "분야": "긍정"},
    {"id": "2", "글": '그는 "별로"라고, 했다', "분야": "부정"},
    {"id": "3", "글": "", "분야": "부정"},
]
FILE = Path("news.csv")


def recipe_of(form: str, **data: Any) -> Recipe:
    keys = {"format": form, "train": f"news.{form}", "id": "id", "texts": ["글"], "label": "분야"}
    fields = {"name": "news", "title": "News", "kind": "classification", "profile": "embedded", "behaviour": {}}
    return Recipe.model_validate(fields | {"labels": ["부정", "긍정"], "data": keys | data})


def data_of(form: str, **data: Any) -> DataSpec:
    return recipe_of(form, **data).data


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_tsv(rows: list[dict[str, Any]]) -> str:
    return "\n".join("\t".join(row) for row in (rows[0], *(map(str, row.values()) for row in rows)))


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], str | bytes]] = {
    "tsv": as_tsv,
    "csv": as_csv,
    "json": lambda rows: json.dumps(rows, ensure_ascii=False),
    "jsonl": lambda rows: "\n".join(json.dumps(row) for row in rows) + "\n",
    "parquet": as_parquet,
}


def content_of(form: str, rows: list[dict[str, Any]] = ROWS) -> bytes:
    written = WRITERS[form](rows)
    return written if isinstance(written, bytes) else written.encode()


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_the_same_rows(form: str) -> None:
    reading = parse_content(data_of(form), FILE, content_of(form))
    assert reading.broken == ()
    assert reading.rows[["id", "text", "label"]].to_numpy().tolist() == [list(row.values()) for row in ROWS]
    assert (reading.rows.dtypes[1:] == "str").all()


@pytest.mark.parametrize("form", WRITERS)
def test_missing_column_is_named(form: str) -> None:
    recipe = recipe_of(form, label="주제")
    if form in ("json", "jsonl"):
        assert {item.rule for item in parse_content(recipe.data, FILE, content_of(form)).broken} == {
            f"every {row_unit(recipe.data)} has `주제`"
        }
        return
    with pytest.raises(DataError, match=r"has no column `?주제"):
        parse_content(recipe.data, FILE, content_of(form))


@pytest.mark.parametrize("form", WRITERS)
def test_row_without_id_column_is_named_by_file_and_row(form: str) -> None:
    recipe = recipe_of(form, id=None)
    first = {"tsv": 2, "csv": 2}.get(form, 1)
    rows = parse_file(recipe, FILE, content_of(form), "day/news").rows
    assert rows["id"].tolist() == [f"day/news:{first + n}" for n in range(3)]
    assert rows.columns.tolist()[:2] == ["row", "id"]


@pytest.mark.parametrize("form", WRITERS)
def test_long_text_is_a_row_like_others(form: str) -> None:
    rows = [ROWS[0] | {"글": "가" * 150_000}, *ROWS[1:]]
    reading = parse_content(data_of(form), FILE, content_of(form, rows))
    assert reading.broken == ()
    assert reading.rows["text"].str.len().max() == 150_000


def test_csv_row_has_the_line_on_which_it_begins() -> None:
    rows = [ROWS[0] | {"글": "한 줄\n두 줄\r\n세 줄"}, *ROWS[1:]]
    reading = parse_content(data_of("csv"), FILE, content_of("csv", rows) + b"\r\n\r\n")
    assert reading.rows["row"].tolist() == [2, 5, 6]
    assert reading.rows["text"][0] == "한 줄\n두 줄\r\n세 줄"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"그는', '"그는" ', r"line 3 is not CSV: .*expected after"),
        ('했다"', "했다", r"line 3 is not CSV: unexpected end of data"),
    ],
)
def test_csv_quotes_must_be_whole(old: str, new: str, problem: str) -> None:
    content = as_csv(ROWS).replace(old, new, 1).encode()
    with pytest.raises(DataError, match=problem):
        parse_content(data_of("csv"), FILE, content)


def test_csv_row_with_other_cells_is_broken() -> None:
    content = as_csv(ROWS).replace("3,,부정", "3,,부정,또").encode()
    (broken,) = parse_content(data_of("csv"), FILE, content).broken
    assert (broken.row, broken.rule, broken.detail) == (4, "3 cells per row, for the columns id, 글, 분야", " (4)")


def test_csv_may_have_another_delimiter() -> None:
    recipe = recipe_of("csv", delimiter=";")
    assert len(parse_content(recipe.data, FILE, as_csv(ROWS, ";").encode()).rows) == 3
    with pytest.raises(DataError, match="has no column `id`"):
        parse_content(recipe.data, FILE, content_of("csv"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp949"])
def test_encoding_must_be_the_one_that_is_named(encoding: str) -> None:
    content = as_csv(ROWS).encode(encoding)
    assert parse_content(data_of("csv", encoding=encoding), FILE, content).rows["text"][0] == "좋다"
    with pytest.raises(DataError, match=rf'data\.encoding = "{encoding}"'):
        parse_content(data_of("csv"), FILE, content)
    other = "utf-16" if encoding == "cp949" else "cp949"
    with pytest.raises(DataError, match=r"correct data\.encoding|has no column `id`"):
        parse_content(data_of("csv", encoding=other), FILE, content[:-1])


def test_broken_line_of_json_lines_is_one_row() -> None:
    content = content_of("jsonl") + b'{"id": "4", "\xea\xb8\x80": "x"\n[1]\n'
    reading = parse_content(data_of("jsonl"), FILE, content)
    assert [(item.row, item.rule) for item in reading.broken] == [(row, "every line is an object") for row in (4, 5)]
    assert len(reading.rows) == 3
    with pytest.raises(DataError, match=r'for one object per line, set data\.format = "jsonl"'):
        parse_content(data_of("json"), FILE, content_of("jsonl"))


def test_parquet_types_are_strict() -> None:
    rows = [row | {"분야": label} for row, label in zip(ROWS, (1, None, 0), strict=True)]
    assert parse_content(data_of("parquet"), FILE, content_of("parquet", rows)).rows["label"].tolist()[::2] == [
        "1",
        "0",
    ]
    dates = [row | {"글": n} for n, row in enumerate(ROWS)]
    broken = parse_content(data_of("parquet"), FILE, content_of("parquet", dates)).broken
    assert [item.rule for item in broken] == ["every `글` is text"] * 3
    with pytest.raises(DataError, match=r"news\.csv is not a Parquet file"):
        parse_content(data_of("parquet"), FILE, content_of("csv"))


@pytest.mark.parametrize("form", ["tsv", "csv", "parquet"])
@pytest.mark.parametrize(("name", "shown"), [("\u200b분야", "'\\u200b분야'"), ("분야 ", "'분야 '")])
def test_column_that_only_looks_right_is_shown(form: str, name: str, shown: str) -> None:
    rows = [{name if key == "분야" else key: value for key, value in row.items()} for row in ROWS]
    with pytest.raises(DataError, match=f"has no column `분야`.*found: id, 글, {re.escape(shown)}"):
        parse_content(data_of(form), FILE, content_of(form, rows))


@pytest.mark.parametrize("form", WRITERS)
def test_names_of_columns_are_compared_in_nfc(form: str) -> None:
    rows = [{normalize("NFD", key): value for key, value in row.items()} for row in ROWS]
    for data in (data_of(form), data_of(form, texts=[normalize("NFD", "글")])):
        reading = parse_content(data, FILE, content_of(form, rows))
        assert reading.rows["text"].tolist() == [row["글"] for row in ROWS]


def test_parquet_with_texts_in_no_encoding_is_refused() -> None:
    offsets, texts = pyarrow.py_buffer(np.array([0, 2], np.int32)), pyarrow.py_buffer("좋".encode("cp949"))
    broken = pyarrow.StringArray.from_buffers(1, offsets, texts)
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": ["1"], "글": broken, "분야": ["긍정"]}), file)
    with pytest.raises(DataError, match="a text is not UTF-8"):
        parse_content(data_of("parquet"), FILE, file.getvalue())


def test_two_columns_of_one_name_are_refused() -> None:
    file = io.BytesIO()
    parquet.write_table(
        pyarrow.Table.from_arrays([["1"], ["좋다"], ["나쁘다"], ["긍정"]], ["id", "글", "글", "분야"]), file
    )
    with pytest.raises(DataError, match="has more than one column `글`"):
        parse_content(data_of("parquet"), FILE, file.getvalue())


def test_struct_fields_of_parquet_are_named_with_dots() -> None:
    rows = [{"id": row["id"], "글": row["글"], "labels": {"분야": row["분야"]}} for row in ROWS]
    found = parse_content(data_of("parquet", label="labels.분야"), FILE, content_of("parquet", rows))
    assert found.rows["label"].tolist() == ["긍정", "부정", "부정"]


def test_labelled_csv_is_read(tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_bytes(content_of("csv"))
    recipe = recipe_of("csv")
    assert read_labelled(recipe, tmp_path / "news.csv")["label"].tolist() == [1, 0, 0]
    assert columns_of(recipe.data) == {"id": "id", "text": "글", "label": "분야"}
