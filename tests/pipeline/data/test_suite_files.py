"""The file of a suite: faults are sentences that name it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.suite_files import read_suite
from pipeline.errors import DataError

RULE = '{"expectations": [{"type": "expect_column_values_to_not_be_null"}]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON: maximum recursion"),
        ("[]", "has no `expectations`"),
        ('{"expectations": []}', "has no `expectations`"),
        ('{"expectations": {"type": "x"}}', "is not a list of objects"),
        ('{"expectations": ["expect_column_values_to_not_be_null"]}', "is not a list of objects"),
        (RULE.replace("{", "\udcff"), "is not JSON"),
    ],
)
def test_file_that_is_no_suite_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "news.json"
    file.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=f"news.json:? .*{message}"):
        read_suite(file)


def test_directory_is_no_suite(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_suite(tmp_path)


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "news.json").write_text(RULE, encoding="utf-8-sig")
    assert len(read_suite(tmp_path / "news.json")["expectations"]) == 1
