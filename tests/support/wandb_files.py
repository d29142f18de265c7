"""Reads the file that Weights & Biases writes about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Bytes before the first record, and before each record: its checksum, its length and its kind.
FILE_HEADER, HEADER = 7, 7
#: Kind of a record that is in one piece, as all are in a file of less than 32 KiB.
WHOLE = 1


def read_wandb_file(path: Path) -> list[Any]:
    """Return the records (`wandb_internal_pb2.Record`) of a short run."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, start, records = path.read_bytes(), FILE_HEADER, []
    while start < len(content):
        end = start + HEADER + int.from_bytes(content[start + 4 : start + 6], "little")
        assert content[start + 6] == WHOLE
        records.append(Record.FromString(content[start + HEADER : end]))
        start = end
    return records
