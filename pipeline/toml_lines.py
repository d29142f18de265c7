"""Line numbers of keys in a TOML document, for error messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")

Path = tuple[str, ...]


def line_of(text: str, keys: Sequence[Sequence[str]]) -> int | None:
    """Return the line, from 1, that sets the first of `keys` that the TOML document `text` sets.

    If it sets none of them, return the line of the innermost table that would contain the last one, or None. An index
    into an array of tables is a part of a key: `("tests", "0", "name")`.
    """
    places = list(_places(text))
    for key in map(tuple, keys):
        for place, line, is_table in places:
            # A longer key may be in an inline table on this line.
            if key == place or (not is_table and place == key[: len(place)]):
                return line
    last = tuple(keys[-1])
    above = [(len(place), line) for place, line, is_table in places if is_table and place == last[: len(place)]]
    return max(above)[1] if above else None


def _places(text: str) -> Iterator[tuple[Path, int, bool]]:
    """Yield each table and key of a TOML document with its line, and whether it is a table."""
    table: Path = ()
    counts: Counter[Path] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            table = _parts(header[2])
            if header[1] == "[[":
                counts[table] += 1
                table = (*table, str(counts[table] - 1))
            yield table, number, True
        elif key := KEY.match(line):
            yield (*table, *_parts(key[1])), number, False


def _parts(dotted: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
