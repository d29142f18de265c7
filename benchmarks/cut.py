"""The first rows of a published file."""

from __future__ import annotations

import json
from pathlib import Path


def first_rows(file: Path, rows: int) -> bytes:
    """`file` (of NSMC's form, or a list in JSON) with its first `rows` rows alone."""
    content = file.read_bytes()
    if file.suffix == ".json":
        return json.dumps(json.loads(content)[:rows], ensure_ascii=False).encode()
    # Not `splitlines`: carriage returns are part of texts. The first line is the header.
    return b"\n".join([*content.split(b"\n")[: rows + 1], b""])
