"""Reading: real defects are kept; unreadable files are refused with file, rows and rule."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from pipeline.data.reading import has_label, read_file, read_labelled, read_rows, read_split, valid_numbers
from pipeline.errors import AbsentDataError, DataError
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.texts import some_of

HEADER = "id\tdocument\tlabel\n"


@pytest.fixture
def nsmc() -> Recipe:
    return load_recipe("nsmc", "embedded")


@pytest.fixture
def sts() -> Recipe:
    return load_recipe("klue-sts", "embedded")


def tsv(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "reviews.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def pairs(tmp_path: Path, items: object) -> Path:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(items), encoding="utf-8")
    return file


def pair(number: int, score: object = 2.5, **changes: object) -> dict[str, object]:
    return {
        "guid": f"pair-{number}",
        "source": "made-up",
        "sentence1": f"비가 {number}시간째 온다.",
        "sentence2": "날이 맑다.",
        "labels": {"real-label": score},
    } | changes


def test_tsv_keeps_carriage_returns_quotes_and_null_words(nsmc: Recipe, tmp_path: Path) -> None:
    file = tsv(tmp_path, HEADER + '1\t재밌다\r진짜\t1\n2\t"짝이 없는 따옴표\t0\n3\t\t1\n4\tNA\t0\n')
    table = read_labelled(nsmc, file)
    assert table.to_dict("list") == {
        "id": ["1", "2", "3", "4"],
        "text": ["재밌다\r진짜", '"짝이 없는 따옴표', "", "NA"],
        "label": [1, 0, 1, 0],
    }
    assert table["label"].dtype == "int64"


def test_rows_know_their_line(nsmc: Recipe, tmp_path: Path) -> None:
    rows = read_rows(nsmc, tsv(tmp_path, HEADER + "7\t좋다\t1\n8\t싫다\t0"))
    assert rows["row"].tolist() == [2, 3]


def test_columns_are_found_in_any_order(nsmc: Recipe, tmp_path: Path) -> None:
    table = read_labelled(nsmc, tsv(tmp_path, "label\tstars\tdocument\tid\n1\t9\t좋다\t5\n"))
    assert table.to_dict("records") == [{"id": "5", "text": "좋다", "label": 1}]


def test_windows_line_ends_read_the_same(nsmc: Recipe, tmp_path: Path) -> None:
    table = read_labelled(nsmc, tsv(tmp_path, "id\tdocument\tlabel\r\n1\t좋\r다\t1\r\n"))
    assert table.to_dict("records") == [{"id": "1", "text": "좋\r다", "label": 1}]


def test_a_class_may_be_written_by_name(nsmc: Recipe, tmp_path: Path) -> None:
    table = read_labelled(nsmc, tsv(tmp_path, HEADER + "1\t좋다\tpositive\n2\t싫다\t0\n"))
    assert table["label"].tolist() == [1, 0]


def test_numbers_that_are_names_are_not_positions(tmp_path: Path) -> None:
    stars = load_recipe("nsmc", "embedded").model_copy(update={"labels": ("1", "2", "3")})
    assert read_labelled(stars, tsv(tmp_path, HEADER + "1\t좋다\t3\n"))["label"].tolist() == [2]
    with pytest.raises(DataError, match=r"line 2 \(label 0\)"):
        read_labelled(stars, tsv(tmp_path, HEADER + "1\t좋다\t0\n"))


def test_json_is_read_by_dotted_keys(sts: Recipe, tmp_path: Path) -> None:
    table = read_labelled(sts, pairs(tmp_path, [pair(1, 4.857142857142857), pair(2, 0)]))
    assert table.to_dict("records")[0] == {
        "id": "pair-1",
        "text": "비가 1시간째 온다.",
        "text_pair": "날이 맑다.",
        "label": 4.857142857142857,
        "source": "made-up",
    }
    assert table["label"].tolist() == [4.857142857142857, 0.0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; copy the published file again"),
        (b" \n", "is empty"),
        (HEADER, "has no rows"),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"1\ta\t1\n", r"line 1 begins with a byte order mark \(UTF-8\)"),
        ((HEADER + "1\t좋다\t1\n").encode("utf-16"), r"byte order mark \(UTF-16\)"),
        (
            (HEADER + "1\t좋다\t1\n2\tok\t0\n3\t싫다\t0\n").encode("cp949"),
            "2 lines are not UTF-8: line 2, line 4; .*CP949",
        ),
        (HEADER.encode() + b"1\t\xff\xff\t1\n", "1 line is not UTF-8: line 2; convert the file to UTF-8$"),
        (
            "id\tdocument\n1\ta\n",
            "line 1, the header, has no column `label`; rule: id, document, label; found: id, doc",
        ),
        ("id\tlabel\tdocument\tlabel\n1\t1\ta\t1\n", "has more than one column `label`"),
        ("1\t좋다\t1\n2\t싫다\t0\n", "header, has no column `id`"),
        (
            HEADER + "1\ta\t1\n2\tb\n3\tc\td\t0\n",
            r'2 rows break the rule "2 tabs per line.*": line 3 \(1\), line 4 \(3\)',
        ),
        (HEADER + "1\ta\t1\n\n", r"1 row breaks the rule .*: line 3 \(0\)"),
        (
            HEADER + "1\ta\t7\n2\tb\t1\n",
            r"every `label` is one of 0, 1, negative, positive\": line 2 \(label 7\)",
        ),
    ],
)
def test_a_bad_tsv_is_refused(nsmc: Recipe, tmp_path: Path, content: str | bytes, sentence: str) -> None:
    file = tsv(tmp_path, content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_labelled(nsmc, file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "has no rows"),
        ({"rows": []}, "the file contains a dict; rule: one list of objects"),
        ([pair(1), "pair 2"], 'rule "every item is an object": item 2'),
        ([pair(1), {"guid": "2"}], 'rule "every item has `sentence1`": item 2'),
        ([pair(1), pair(2, labels={"label": 3})], 'rule "every item has `labels.real-label`": item 2'),
        ([pair(1, sentence1=5)], 'rule "every `sentence1` is text": item 1'),
        ([pair(1), pair(2, sentence2=None)], 'rule "every row has a text": item 2'),
        ([pair(1, sentence1="반쪽 \ud83d")], 'rule "every `sentence1` is text": item 1'),
        ([pair(1, True)], r'rule "every `labels.real-label` is text or a number": item 1'),
        ([pair(1, "높음")], r"is a number from 0 to 5\": item 1 \(label 높음\)"),
        (
            [pair(n, 7) for n in range(9)],
            r"9 rows break .*: item 1 \(label 7\), item 2 \(label 7\), item 3 \(label 7\) and 6 more",
        ),
        ([pair(1, float("nan"))], r"item 1 \(no label\)"),
        ([pair(1, None)], r"is a number from 0 to 5\": item 1 \(no label\)"),
        ([pair(1, "1" * 5000)], r"is a number from 0 to 5\": item 1 \(label 1{60}\.\.\.\)$"),
    ],
)
def test_bad_json_is_refused(sts: Recipe, tmp_path: Path, items: object, sentence: str) -> None:
    file = pairs(tmp_path, items)
    with pytest.raises(DataError, match=sentence) as caught:
        read_labelled(sts, file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("1\r", r"'1\\r'"),
        (" 1", "' 1'"),
        ("1 ", "'1 '"),
        ("\N{FULLWIDTH DIGIT ONE}", r"'\\uff11'"),
        ("1\N{ZERO WIDTH SPACE}", r"'1\\u200b'"),
        ("\N{NO-BREAK SPACE}1", r"'\\xa01'"),
        ("\N{BYTE ORDER MARK}1", r"'\\ufeff1'"),
        ("", "''"),
        ("ㅋㅋ 좋음", "ㅋㅋ 좋음"),
    ],
)
def test_label_that_only_looks_right_is_shown(nsmc: Recipe, tmp_path: Path, label: str, shown: str) -> None:
    with pytest.raises(DataError, match=rf": line 2 \(label {shown}\)$"):
        read_labelled(nsmc, tsv(tmp_path, HEADER + f"1\t좋다\t{label}\n2\t싫다\t0\n"))


@pytest.mark.parametrize("labels", [("0.5", "1.0", "1.5", "2.0"), ("0.5", "1", "1.5", "2")])
def test_a_number_is_the_name_of_a_class_in_any_spelling(tmp_path: Path, labels: tuple[str, ...]) -> None:
    stars = load_recipe("nsmc", "embedded").model_copy(update={"labels": labels})
    table = read_labelled(stars, tsv(tmp_path, HEADER + "".join(f"{n}\t별\t{n}\n" for n in ("2", "2.0", "1", "0.5"))))
    assert [labels[number] for number in table["label"]] == [labels[3], labels[3], labels[1], "0.5"]
    # Before, 3 was the class at position 3.
    for wrong in ("3", "0", "2.00", "+2", "02"):
        with pytest.raises(DataError, match="every `label` is one of"):
            read_labelled(stars, tsv(tmp_path, HEADER + f"1\t별\t{wrong}\n"))


def test_number_of_a_class_is_read_beside_empty_cells(nsmc: Recipe, tmp_path: Path) -> None:
    # A table that writes whole numbers as 1.0, because one of them is missing.
    reading = read_file(nsmc, tsv(tmp_path, HEADER + "1\t좋다\t1.0\n2\t싫다\t0.0\n3\t글쎄\t\n"))
    assert valid_numbers(nsmc, reading.rows["label"]).tolist()[:2] == [1.0, 0.0]
    assert has_label(nsmc, reading.rows).tolist() == [True, True, False]


def test_decomposed_text_and_label_are_composed(tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded").model_copy(update={"labels": ("부정", "긍정")})
    file = tsv(tmp_path, unicodedata.normalize("NFD", HEADER + "한글\t재밌다\t긍정\n"))
    assert read_labelled(recipe, file).to_dict("records") == [
        {"id": unicodedata.normalize("NFD", "한글"), "text": "재밌다", "label": 1}
    ]


def test_number_with_too_many_digits_breaks_only_its_row(sts: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "long.json"
    file.write_text(json.dumps([pair(1), pair(2, 0)]).replace('"real-label": 0', f'"real-label": {"9" * 5000}'))
    with pytest.raises(DataError, match=r'1 row breaks the rule "every .*": item 2 \(label inf\)$'):
        read_labelled(sts, file)
    file.write_text(json.dumps([pair(1) | {"sentence2": 0}]).replace('"sentence2": 0', f'"sentence2": {"9" * 5000}'))
    with pytest.raises(DataError, match="every `sentence2` is text"):
        read_labelled(sts, file)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deeply_nested_json_is_refused(sts: Recipe, tmp_path: Path, opening: str) -> None:
    file = tmp_path / "deep.json"
    file.write_text(opening * 200_000)
    with pytest.raises(DataError, match=r"deep\.json: values are nested too deeply; rule: one list of objects"):
        read_labelled(sts, file)


def test_directory_of_other_recipes_is_named(sts: Recipe, tmp_path: Path) -> None:
    (tmp_path / "nsmc").mkdir()
    for name in ("ratings_train.txt", "ratings_test.txt"):
        (tmp_path / "nsmc" / name).touch()
    with pytest.raises(
        AbsentDataError, match=r"neither klue-sts/\S+ nor klue-sts/\S+, .*; it has the files of nsmc; set SAEBYEOK_DATA"
    ):
        read_split(sts, tmp_path, "train")
    # One of the two files is a mistake, not the data of other recipes.
    (tmp_path / "klue-sts").mkdir()
    (tmp_path / sts.data.test).touch()
    with pytest.raises(DataError, match=r"v1\.1_train\.json is missing") as caught:
        read_split(sts, tmp_path, "train")
    assert not isinstance(caught.value, AbsentDataError)


def test_truncated_json_is_refused_with_its_line(sts: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "cut.json"
    file.write_text(json.dumps([pair(1), pair(2)], indent=1)[:-20], encoding="utf-8")
    with pytest.raises(DataError, match=r"cut\.json: line \d+ is not JSON: the file ends too early"):
        read_labelled(sts, file)


def test_missing_directory_error_names_its_content(nsmc: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a directory; set SAEBYEOK_DATA .*nsmc/ratings_train\.txt"):
        read_split(nsmc, tmp_path / "nowhere", "train")


def test_missing_file_error_names_its_path(nsmc: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nsmc/ratings_test\.txt is missing; SAEBYEOK_DATA is "):
        read_split(nsmc, tmp_path, "test")


def test_some_of_lists_the_first_and_counts_more() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert some_of(["a", "b", "c", "d"], 2000) == "a, b, c and 1,997 more"


def test_the_published_files_are_read(nsmc: Recipe, sts: Recipe, real_data: Path) -> None:
    reviews = read_split(nsmc, real_data, "test")
    assert len(reviews) == 50_000
    assert set(reviews["label"]) == {0, 1}
    assert reviews["text"].str.contains("\r").any()
    scores = read_split(sts, real_data, "test")
    assert len(scores) == 519
    assert scores["label"].between(0, 5).all()
