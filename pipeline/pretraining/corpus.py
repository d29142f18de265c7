"""Pretraining corpus: read, clean and encode raw lines."""

from __future__ import annotations

import gzip
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
from pipeline.texts import composed

#: Number of lines per call of the tokenizer.
LINES_PER_CALL = 10_000
#: Minimum tokens of a line, special ones included; shorter lines give no context to predict a masked token.
SHORTEST_LINE = 5


def read_lines(files: Sequence[Path]) -> list[str]:
    """Return the lines of text files (gzipped if named `.gz`) in order: in NFC, without duplicates and empty lines.

    Raises DataError if a file cannot be read, is truncated or is not UTF-8, or if there are no lines.
    """
    lines = dict.fromkeys(line for file in files for line in _clean(_lines_of(file)))
    if not lines:
        raise DataError(f"{', '.join(map(str, files))}: no line contains text; give files with one text per line")
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
        text = " ".join(composed(line).split())
        if text:
            yield text


@dataclass(frozen=True)
class Corpus(Dataset[dict[str, Any]]):
    """Encoded lines, concatenated in one array: `ids[starts[n]:starts[n + 1]]` is line `n`."""

    ids: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[self.starts[index] : self.starts[index + 1]]}

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Number of tokens per line (lines,), special ones included."""
        return np.diff(self.starts)


def encode_lines(tokenizer: Tokenizer, lines: Sequence[str], max_length: int) -> Corpus:
    """Encode `lines`, truncated to `max_length` tokens (special ones included); lines that are too short are skipped.

    Raises DataError if all lines are too short.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    found = []
    for start in range(0, len(lines), LINES_PER_CALL):
        encoded = tokenizer.encode_batch(lines[start : start + LINES_PER_CALL])
        found += [np.array(item.ids, np.int32) for item in encoded if len(item.ids) >= SHORTEST_LINE]
    if not found:
        raise DataError(f"no line has at least {SHORTEST_LINE} tokens; give longer texts")
    return Corpus(np.concatenate(found), np.concatenate([[0], np.cumsum([len(ids) for ids in found])]))


@dataclass(frozen=True)
class CollateLines:
    """Collate lines into a batch, padded on the right; without a mask if all have the same length."""

    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return `input_ids` (batch, length), and `attention_mask` (batch, length) if there is padding."""
        lines = [row["input_ids"] for row in rows]
        lengths = np.array([len(line) for line in lines])
        ids = np.full((len(lines), lengths.max()), self.pad, np.int64)
        for row, line in zip(ids, lines, strict=True):
            row[: len(line)] = line
        batch = {"input_ids": torch.from_numpy(ids)}
        if lengths.min() < lengths.max():
            batch["attention_mask"] = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64))
        return batch
