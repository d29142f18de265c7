"""The first rows of a published file."""

from __future__ import annotations

import json
from pathlib import Path


def first_rows(file: Path, rows: int) -> bytes:
    """Return the content of `file` (NSMC's TSV, or a JSON list) with only its first `rows` rows."""
    content = file.read_bytes()
    if file.suffix == ".json":
        return json.dumps(json.loads(content)[:rows], ensure_ascii=False).encode()
    # Not `splitlines`: texts contain carriage returns. The first line is the header.
    return b"\n".join([*content.split(b"\n")[: rows + 1], b""])
