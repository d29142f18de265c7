"""Raw lines: reading, cleaning, skipped lines and refused files."""

from __future__ import annotations

import gzip
import unicodedata
from pathlib import Path

import pytest
import torch

from pipeline.errors import DataError
from pipeline.models.tokenizer import train_wordpiece
from pipeline.pretraining.corpus import CollateLines, encode_lines, read_lines

pytestmark = pytest.mark.torch

LINES = ["정말 재미있는 영화였어요", "다시는 보고 싶지 않다", "배우들의 연기가 좋았다"]


def test_lines_are_cleaned_and_each_is_read_once(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.txt", tmp_path / "packed.txt.gz"
    plain.write_bytes(b"\xef\xbb\xbf" + f"{LINES[0]}\r\n\n \t\n  {LINES[1]}   \n{LINES[0]}\n".encode())
    apart = unicodedata.normalize("NFD", LINES[1])
    packed.write_bytes(gzip.compress(f"{apart}\n{LINES[2]}".encode()))
    assert read_lines([plain, packed]) == LINES


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.txt", b"\n \n", "no line contains text"),
        ("korean.txt", LINES[0].encode() + b"\n" + LINES[1].encode("cp949"), "line 2: not UTF-8"),
        ("cut.txt.gz", gzip.compress("\n".join(LINES).encode() * 50)[:-20], "cannot be read to its end"),
        ("plain.txt.gz", LINES[0].encode(), "cannot be read to its end"),
    ],
)
def test_binary_file_is_refused_by_name(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_lines([file])
    assert str(file) in str(caught.value)


def test_encoded_lines_are_truncated_and_short_ones_skipped() -> None:
    tokenizer = train_wordpiece(LINES * 5, 300)
    corpus = encode_lines(tokenizer, [*LINES, "나"], max_length=6)
    assert len(corpus) == 3
    assert corpus.lengths.max() == 6
    assert len(corpus.ids) == corpus.lengths.sum()
    for number, line in enumerate(LINES):
        assert corpus[number]["input_ids"].tolist() == tokenizer.encode(line).ids
    with pytest.raises(DataError, match="no line has at least 5 tokens"):
        encode_lines(tokenizer, ["나"], max_length=6)


def test_only_padding_needs_a_mask() -> None:
    corpus = encode_lines(train_wordpiece(LINES * 5, 300), LINES, max_length=64)
    collate = CollateLines(0)
    assert collate([corpus[0], corpus[0]]).keys() == {"input_ids"}
    batch = collate([corpus[0], corpus[1]])
    assert batch["attention_mask"].sum(1).tolist() == corpus.lengths[:2].tolist()
    assert torch.equal(batch["attention_mask"].bool(), batch["input_ids"] != 0)
