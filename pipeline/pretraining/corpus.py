"""Raw lines to pretrain on: read, cleaned and encoded."""

from __future__ import annotations

import gzip
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import DataError

#: Lines that the tokenizer is handed at once.
CHUNK = 10_000
#: With fewer tokens, special ones included, there is nothing to tell a hidden one by.
SHORTEST = 5


def read_lines(files: Sequence[Path]) -> list[str]:
    """The lines of text files, gzipped where they end in `.gz`, in their order: NFC, each once, no empty ones.

    Raises DataError where a file cannot be read, is cut short or is not UTF-8, or where there is not one line.
    """
    lines = dict.fromkeys(line for file in files for line in _clean(_lines_of(file)))
    if not lines:
        raise DataError(f"{', '.join(map(str, files))}: no line with text; name files of one text a line")
    return list(lines)


def _lines_of(file: Path) -> Iterator[str]:
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as content:
            for number, line in enumerate(content, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{file}, line {number}: not UTF-8 ({error.reason}); convert the file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read to its end: {error}") from error


def _clean(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        text = " ".join(unicodedata.normalize("NFC", line).split())
        if text:
            yield text


@dataclass(frozen=True)
class Corpus(Dataset[dict[str, Any]]):
    """Encoded lines, one after the other in one array: `ids[starts[n]:starts[n + 1]]` is line `n`."""

    ids: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[self.starts[index] : self.starts[index + 1]]}

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens of every line, special ones included."""
        return np.diff(self.starts)


def encode_lines(tokenizer: Tokenizer, lines: Sequence[str], max_length: int) -> Corpus:
    """`lines` as ids, cut at `max_length` tokens (special ones included); too short ones are left out."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    found = []
    for start in range(0, len(lines), CHUNK):
        encoded = tokenizer.encode_batch(lines[start : start + CHUNK])
        found += [np.array(item.ids, np.int32) for item in encoded if len(item.ids) >= SHORTEST]
    if not found:
        raise DataError(f"no line has {SHORTEST} tokens or more; give longer texts")
    return Corpus(np.concatenate(found), np.concatenate([[0], np.cumsum([len(ids) for ids in found])]))


@dataclass(frozen=True)
class CollateLines:
    """Lines to a batch, padded on the right; without a mask where all are as long."""

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`input_ids` (batch, length), and `attention_mask` where there is padding."""
        lines = [row["input_ids"] for row in rows]
        lengths = np.array([len(line) for line in lines])
        ids = np.full((len(lines), lengths.max()), self.pad, np.int64)
        for row, line in zip(ids, lines, strict=True):
            row[: len(line)] = line
        batch = {"input_ids": torch.from_numpy(ids)}
        if lengths.min() < lengths.max():
            batch["attention_mask"] = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64))
        return batch
